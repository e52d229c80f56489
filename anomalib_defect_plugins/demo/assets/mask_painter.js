// Paints on the image. The value is what is painted: a PNG as large as the image, clear where there is no paint.
const COLOUR = "#00c8ff";
const [canvas, brush, eraser] = ["canvas", "[type=range]", "[type=checkbox]"].map((it) => element.querySelector(it));
const context = canvas.getContext("2d", { willReadFrequently: true });
let last;
const scale = () => canvas.width / canvas.getBoundingClientRect().width;
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * scale(), (event.clientY - box.top) * scale()];
};
const draw = (event) => {
  const [x, y] = place(event);
  context.globalCompositeOperation = eraser.checked ? "destination-out" : "source-over";
  [context.strokeStyle, context.lineCap, context.lineWidth] = [COLOUR, "round", brush.value * scale()];
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(x + 0.01, y); // a click alone makes a dot
  context.stroke();
  last = [x, y];
};
const fill = (whole) => {
  context.globalCompositeOperation = "source-over";
  context.fillStyle = COLOUR;
  context[whole ? "fillRect" : "clearRect"](0, 0, canvas.width, canvas.height);
  props.value = whole ? canvas.toDataURL() : "";
};
const end = () => {
  if (last) props.value = canvas.toDataURL();
  last = undefined;
};
canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  last = place(event);
  draw(event);
});
canvas.addEventListener("pointermove", (event) => last && draw(event));
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-fill]");
  if (button) fill(button.dataset.fill === "all");
});
watch("photo", () => fill(false));
