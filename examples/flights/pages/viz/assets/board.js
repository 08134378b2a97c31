// Turns the JSON of a dashboard into elements. The frame's page and the web component share it.
// Text goes in as text; only the drawing is parsed, as XML, and it comes from the chart server itself.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(svg) {
  const parsed = new DOMParser().parseFromString(svg, "image/svg+xml");
  return element("div", { class: "drawing" }, document.importNode(parsed.documentElement, true));
}

function numbers(table) {
  const head = element("tr", {}, ...table.columns.map((name) => element("th", { scope: "col" }, name)));
  const rows = table.rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))));
  const body = element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  return element("details", { class: "numbers" },
    element("summary", {}, "The numbers as a table"), element("div", { class: "scroll", tabindex: "0" }, body));
}

export function renderBoard(board, data) {
  const tiles = data.tiles.map((tile) => element("div", { class: "tile" }, element("dt", {}, tile.label),
    element("dd", {}, element("span", { class: "number" }, tile.value), element("span", { class: "note" }, tile.note))));
  const panels = data.charts.map((chart) => {
    const panel = element("section", { class: "panel" }, element("h3", {}, chart.title),
      element("p", { class: "panel-note" }, chart.note), drawing(chart.svg));
    if (chart.table) panel.append(numbers(chart.table));
    return panel;
  });
  board.classList.add(data.dashboard);
  board.replaceChildren(element("dl", { class: "tiles" }, ...tiles), element("div", { class: "charts" }, ...panels));
}

// A refusal is shown in the words of the guard: its title, what to do, and the reason that support will ask for.
export function renderRefusal(board, problem) {
  const code = [problem.reason && `Reason: ${problem.reason}`, problem.request_id && `Reference: ${problem.request_id}`];
  board.replaceChildren(element("div", { class: "refusal", role: "alert" }, element("h3", {}, problem.title),
    element("p", {}, problem.advice ?? problem.detail ?? ""), element("small", {}, code.filter(Boolean).join(" · "))));
}

export async function fetchBoard(url, headers = {}) {
  let answer;
  try {
    answer = await fetch(url, { headers: { accept: "application/json", ...headers }, cache: "no-store" });
  } catch {
    throw { title: "The chart service cannot be reached from this page",
      detail: "It may be down, or this web site may not be on the list of sites that may show its charts." };
  }
  const body = await answer.json().catch(() => ({ title: `The chart service answered ${answer.status}` }));
  if (!answer.ok) throw { status: answer.status, ...body };
  return body;
}

// Drawn on the server at the width of the place they stand in; drawn anew when that width really changes.
export function onWidth(board, draw) {
  let last = 0, timer;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (!width || Math.abs(width - last) < 24) return;
    const first = !last;
    last = width;
    board.classList.toggle("wide", width >= 980);
    clearTimeout(timer);
    timer = setTimeout(() => draw(width), first ? 0 : 180);
  }).observe(board);
}
