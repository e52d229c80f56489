// The report's sorting, again after each change of the table; the order that was chosen stays.
let sorted;
const decorate = () => {
  SORT
  for (const table of element.querySelectorAll("table")) {
    const heads = [...table.tHead.rows[0].cells];
    const known = heads.find((head) => head.textContent === sorted?.title);
    for (let turn = 0; known && known.ariaSort !== sorted.order && turn < 2; turn++) known.firstChild.click();
  }
};
element.addEventListener("click", (event) => {
  const head = event.isTrusted && event.target.closest("th");
  if (head?.ariaSort) sorted = { title: head.textContent, order: head.ariaSort };
});
watch("value", decorate);
decorate();
