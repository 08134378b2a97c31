// A frame tells how high its content is. Only frames of the chart server are heard, each for itself.
const { charts } = document.body.dataset;

addEventListener("message", (event) => {
  if (event.origin !== charts || event.data?.type !== "flights:height") return;
  const height = Number(event.data.height);
  if (!(height > 0 && height < 4000)) return;
  for (const frame of document.querySelectorAll("iframe")) {
    if (frame.contentWindow === event.source) frame.style.height = `${height}px`;
  }
});
