// Saves each new value as a file; the value holds its name and its content as a data URI.
watch("value", () => {
  const link = document.createElement("a");
  [link.download, link.href] = [props.value.name, props.value.uri];
  link.click();
});
