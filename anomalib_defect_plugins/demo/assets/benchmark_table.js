// Makes the table sortable after each update and keeps the chosen order. Needs makeTablesSortable of the report.
let sorting;
const restoreSorting = () => {
  makeTablesSortable(element);
  for (const table of element.querySelectorAll("table")) {
    const headers = [...table.tHead.rows[0].cells];
    const header = headers.find((cell) => cell.textContent === sorting?.title);
    for (let click = 0; header && header.ariaSort !== sorting.order && click < 2; click++) header.firstChild.click();
  }
};
element.addEventListener("click", (event) => {
  const header = event.isTrusted && event.target.closest("th");
  if (header?.ariaSort) sorting = { title: header.textContent, order: header.ariaSort };
});
watch("value", restoreSorting);
restoreSorting();
