"use strict";
(() => {
  const kind = document.getElementById("kind");
  const set = document.getElementById("set");
  const words = document.getElementById("words");
  const count = document.getElementById("count");
  const examples = [...document.querySelectorAll(".example")].map((node) => ({ node, text: node.textContent.toLowerCase() }));

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { node, text } of examples) {
      const fits =
        (!kind.value || node.dataset.kind === kind.value) &&
        (!set.value || node.dataset.set === set.value) &&
        wanted.every((word) => text.includes(word));
      node.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${examples.length} shown`;
  }

  for (const control of [kind, set, words]) control.addEventListener("input", filter);
  // paper has no folds
  const folded = [];
  window.addEventListener("beforeprint", () => {
    folded.push(...document.querySelectorAll(".example:not([open])"));
    for (const node of folded) node.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const node of folded.splice(0)) node.open = false;
  });
  document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
})();
