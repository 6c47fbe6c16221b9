"use strict";
// Filters the fields, opens what a link leads to, and shows an entry's body beside the sentence
// that leans on it. Without it the page says the same: every link leads to its entry.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const form = document.getElementById("filter");
  const words = document.getElementById("filter-words");
  const who = document.getElementById("filter-who");
  const found = document.getElementById("filter-found");
  const boxes = all("input[type=checkbox]", form);
  const fields = all("article.field").map((element) => ({
    element,
    text: element.textContent.toLowerCase(),
    status: element.dataset.status,
    asks: element.dataset.asks,
  }));

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const statuses = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const field of fields) {
      const fits =
        statuses.has(field.status) &&
        (who.value === "" || field.asks === who.value) &&
        wanted.every((word) => field.text.includes(word));
      field.element.hidden = !fits;
      count += fits ? 1 : 0;
    }
    for (const chapter of all("section.chapter")) {
      chapter.hidden = all("article.field:not([hidden])", chapter).length === 0;
    }
    found.textContent = count === fields.length
      ? `All ${count} fields are shown.`
      : `${count} of ${fields.length} fields are shown.`;
  }

  function everything() {
    words.value = "";
    who.value = "";
    boxes.forEach((box) => { box.checked = true; });
    filter();
  }

  // A link may lead into something closed, or to a field that the filter hides.
  function reveal() {
    const id = location.hash.slice(1);
    const target = document.getElementById(id) || document.getElementById(decoded(id));
    if (!target) return;
    if (target.closest("[hidden]")) everything();
    for (let above = target; above; above = above.parentElement) {
      if (above.tagName === "DETAILS") above.open = true;
    }
    target.scrollIntoView();
    if (!target.hasAttribute("tabindex")) target.tabIndex = -1;
    target.focus({ preventScroll: true });
  }

  function decoded(id) {
    try {
      return decodeURIComponent(id);
    } catch {
      return id;
    }
  }

  function beside(line) {
    if (line.dataset.shown) return;
    line.dataset.shown = "yes";
    const entry = document.getElementById(line.dataset.entry);
    const body = entry && entry.querySelector(".body");
    if (body) line.append(body.cloneNode(true));
  }

  document.addEventListener("toggle", (event) => {
    if (event.target.open) all("li[data-entry]", event.target).forEach(beside);
  }, true);
  document.addEventListener("click", (event) => {
    const only = event.target.closest("a[data-only]");
    if (only) {
      everything();
      boxes.forEach((box) => { box.checked = box.value === only.dataset.only; });
      filter();
    }
    // The same link again changes no address, and still has to open what it leads to.
    const link = event.target.closest("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) reveal();
  });
  form.addEventListener("input", filter);
  document.getElementById("filter-all").addEventListener("click", everything);
  window.addEventListener("hashchange", reveal);

  const wide = window.matchMedia("(min-width: 76rem)");
  const contents = document.querySelector(".contents details");
  const lay = () => { contents.open = wide.matches; };
  wide.addEventListener("change", lay);
  lay();
  form.hidden = false;
  filter();
  if (location.hash) reveal();
})();
