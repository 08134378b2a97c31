// <toucan-chart dashboard="routes" token-url="/embed/token?as=network">: a chart without a frame.
// Its pass comes from the portal's own backend, travels in a header, and is kept in memory only.
import { fetchBoard, onWidth, renderBoard, renderRefusal } from "./assets/board.js";

const home = new URL(import.meta.url).origin;

customElements.define("toucan-chart", class extends HTMLElement {
  #board = document.createElement("div");
  #token = null;

  connectedCallback() {
    if (this.shadowRoot) return;
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = `${home}/assets/charts.css`;
    this.#board.className = "board waiting";
    this.#board.textContent = "Loading the chart…";
    this.attachShadow({ mode: "open" }).append(style, this.#board);
    onWidth(this.#board, (width) => this.#draw(width));
  }

  async #draw(width) {
    try {
      renderBoard(this.#board, await this.#data(width));
    } catch (problem) {
      renderRefusal(this.#board, problem);
    }
    this.#board.classList.remove("waiting");
  }

  async #data(width) {
    const url = `${home}/api/dashboards/${encodeURIComponent(this.getAttribute("dashboard"))}/data?width=${width}`;
    const ask = async () => fetchBoard(url, { authorization: `Bearer ${(this.#token ??= await this.#pass())}` });
    try {
      return await ask();
    } catch (problem) {
      // A pass lives for minutes. When it has run out the portal is asked for a new one, once.
      if (problem.reason !== "token_expired") throw problem;
      this.#token = null;
      return ask();
    }
  }

  async #pass() {
    const answer = await fetch(this.getAttribute("token-url"), { method: "POST", cache: "no-store" });
    if (!answer.ok) throw { title: "This page could not get a pass for the chart", detail: "Reload the page and try again." };
    return (await answer.json()).token;
  }
});
