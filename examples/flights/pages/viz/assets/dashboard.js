// The page inside the frame. Its address carries embed=…, the name of this frame's session: every request
// repeats it, so that two frames of two people in one page are never taken for each other.
import { fetchBoard, onWidth, renderBoard, renderRefusal } from "./board.js";

const { dashboard } = document.body.dataset;
const byId = (id) => document.getElementById(id);
const board = byId("board");
const embed = new URLSearchParams(location.search).get("embed");

function address(path, extra = {}) {
  return `${path}?${new URLSearchParams({ ...(embed && { embed }), ...extra })}`;
}

let listening = false;
onWidth(board, async (width) => {
  try {
    const data = await fetchBoard(address(`/api/dashboards/${dashboard}/data`, { width }));
    byId("scope").textContent = data.scope;
    renderBoard(board, data);
    if (!listening && dashboard === "delays") {
      listen();
      listening = true;
    }
  } catch (problem) {
    renderRefusal(board, problem);
  }
  board.classList.remove("waiting");
});

// The frame is as high as what it shows, once it shows all of it: until then it keeps the height that the page has
// reserved, or everything below it would jump. The height is no secret, so any parent may hear it.
new ResizeObserver(() => {
  if (board.classList.contains("waiting") || (listening && byId("live").hidden)) return;
  parent.postMessage({ type: "flights:height", height: Math.ceil(document.body.getBoundingClientRect().height) }, "*");
}).observe(document.body);

function listen() {
  const delays = [], list = byId("ticks"), live = byId("live"), pause = byId("live-pause");
  let paused = false;
  const socket = new WebSocket(address(`/live/${dashboard}`));
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Resume" : "Pause";
    live.className = paused ? "live paused" : "live running";
  });
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(data);
    live.hidden = false;
    if (message.type === "day") {
      live.className = "live running";
      byId("live-day").textContent = `${message.day} as it happened · ${message.flights} flights`;
    } else if (!paused) {
      list.prepend(tick(message));
      while (list.children.length > 5) list.lastChild.remove();
      delays.push(Math.max(0, message.delay ?? 0));
      spark(delays.slice(-60));
    }
  });
  socket.addEventListener("close", () => { live.className = "live paused"; pause.disabled = true; pause.textContent = "Ended"; });
}

function tick({ clock, name, origin, dest, delay }) {
  const [kind, text] = delay === null ? ["cancelled", "cancelled"] : delay > 15 ? ["late", `${delay} min late`] : ["on-time", "on time"];
  const parts = [["time", clock], ["b", name], ["span", `${origin} → ${dest}`], ["span", text]].map(([tag, content]) => {
    const made = document.createElement(tag);
    made.textContent = content;
    return made;
  });
  parts[3].className = kind;
  const item = document.createElement("li");
  item.append(...parts);
  return item;
}

function spark(values) {
  const most = Math.max(30, ...values);
  const points = values.map((value, index) => `${60 - values.length + 1 + index} ${(29 - (value / most) * 27).toFixed(2)}`);
  document.querySelector(".spark-line").setAttribute("d", `M${points.join("L")}`);
  document.querySelector(".spark-area").setAttribute("d", `M${61 - values.length} 29L${points.join("L")}L60 29Z`);
}
