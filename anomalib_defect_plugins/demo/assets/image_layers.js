// Zoom and pan, the bare photo while a key is held, and defects that light up with their row of the table.
let [zoom, x, y, last] = [1, 0, 0, undefined];
const regions = () => document.getElementById(element.closest("[id$=-layers]").id.replace("layers", "regions"));
const apply = () => {
  if (zoom === 1) [x, y] = [0, 0];
  const values = { "--zoom": zoom, "--x": `${x}px`, "--y": `${y}px` };
  for (const [name, value] of Object.entries(values)) element.style.setProperty(name, value);
};
const zoomBy = (factor) => {
  const before = zoom;
  zoom = Math.min(8, Math.max(1, zoom * factor));
  [x, y] = [(x * zoom) / before, (y * zoom) / before];
  apply();
};
const light = (number) => {
  for (const part of [...element.querySelectorAll("[data-region]"), ...regions().querySelectorAll("[data-region]")])
    part.classList.toggle("lit", part.dataset.region === number);
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-zoom]");
  if (button) zoomBy(Number(button.dataset.zoom));
});
element.addEventListener("dblclick", (event) => event.target.closest(".layers") && zoomBy(zoom < 8 ? 2 : 1 / 8));
element.addEventListener("pointerdown", (event) => {
  if (zoom > 1 && event.target.closest(".layers")) last = [event.clientX, event.clientY];
});
document.addEventListener("pointermove", (event) => {
  if (!last) return;
  [x, y] = [x + event.clientX - last[0], y + event.clientY - last[1]];
  last = [event.clientX, event.clientY];
  apply();
});
document.addEventListener("pointerup", () => (last = undefined));
for (const [name, bare] of [["keydown", 1], ["keyup", 0]]) {
  document.addEventListener(name, (event) => {
    if (event.key.toLowerCase() !== "h" || event.target.closest?.("input:not([type=range]), textarea")) return;
    if (!event.ctrlKey && !event.metaKey && !event.altKey) element.style.setProperty("--bare", bare);
  });
}
for (const name of ["mouseover", "focusin"]) {
  document.addEventListener(name, (event) => {
    const part = event.target.closest?.("[data-region]");
    if (part && (element.contains(part) || regions()?.contains(part))) light(part.dataset.region);
  });
}
