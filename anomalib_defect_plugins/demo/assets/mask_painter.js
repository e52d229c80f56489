// Painting on an image. The value is a PNG of the image's size, transparent where nothing is painted.
const COLOUR = "#00c8ff";
const [canvas, brush, eraser] = ["canvas", "[type=range]", "[type=checkbox]"].map((name) => element.querySelector(name));
const context = canvas.getContext("2d", { willReadFrequently: true });
let last;
const scale = () => canvas.width / canvas.getBoundingClientRect().width;
const pixelOf = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * scale(), (event.clientY - box.top) * scale()];
};
const draw = (event) => {
  const [x, y] = pixelOf(event);
  context.globalCompositeOperation = eraser.checked ? "destination-out" : "source-over";
  [context.strokeStyle, context.lineCap, context.lineWidth] = [COLOUR, "round", brush.value * scale()];
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(x + 0.01, y); // a single click draws a dot
  context.stroke();
  last = [x, y];
};
const fill = (paint) => {
  context.globalCompositeOperation = "source-over";
  context.fillStyle = COLOUR;
  context[paint ? "fillRect" : "clearRect"](0, 0, canvas.width, canvas.height);
  props.value = paint ? canvas.toDataURL() : "";
};
const endStroke = () => {
  if (last) props.value = canvas.toDataURL();
  last = undefined;
};
canvas.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  last = pixelOf(event);
  draw(event);
});
canvas.addEventListener("pointermove", (event) => last && draw(event));
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, endStroke);
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-fill]");
  if (button) fill(button.dataset.fill === "all");
});
// An earlier painting of the image, if there is one, is continued.
watch("photo", () => {
  fill(false);
  if (!props.start) return;
  const earlier = new Image();
  earlier.onload = () => {
    context.drawImage(earlier, 0, 0);
    props.value = props.start;
  };
  earlier.src = props.start;
});
