// Tries what a page can try, with a pass that is valid, and shows what came of it.
const { charts, sockets, token } = JSON.parse(document.body.dataset.loot);

function show(id, text, refused) {
  const output = document.getElementById(id);
  output.textContent = text;
  output.className = refused ? "refused" : "";
}

try {
  const answer = await fetch(`${charts}/api/dashboards/delays/data`, { headers: { authorization: `Bearer ${token}` } });
  const body = await answer.json();
  show("fetch", answer.ok ? `It worked: ${body.flights} flights. This must not happen.` : `${answer.status} ${body.title}`, !answer.ok);
} catch (error) {
  show("fetch", `${error.name}: ${error.message}. The browser keeps the answer from this page.`, true);
}

const socket = new WebSocket(`${sockets}/live/delays`, ["embed", `embed.token.${token}`]);
socket.addEventListener("open", () => show("socket", "It opened. This must not happen.", false));
socket.addEventListener("close", ({ code }) => show("socket", `Closed with code ${code} before it opened.`, true));
