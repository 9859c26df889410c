"use strict";
const form = document.getElementById("filter");
const words = document.getElementById("words");
const choice = document.getElementById("class");
const found = document.getElementById("found");
const cards = [...document.querySelectorAll(".cards > li")].map((card) => ({
  card,
  section: card.closest("section"),
  label: card.dataset.label,
  text: (card.dataset.name + " " + card.dataset.label).toLowerCase(),
}));
// A file that is also asked for has two cards, and counts once.
const files = new Set(cards.map(({ card }) => card.dataset.name)).size;

function filter() {
  const text = words.value.trim().toLowerCase();
  const label = choice.selectedIndex > 0 ? choice.value : null;
  const filled = new Set();
  const names = new Set();
  for (const one of cards) {
    const shown = one.text.includes(text) && (label === null || one.label === label);
    one.card.hidden = !shown;
    if (shown) {
      filled.add(one.section);
      names.add(one.card.dataset.name);
    }
  }
  const all = text === "" && label === null;
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = !all && !filled.has(section);
  }
  found.textContent = all ? "" : names.size + " of " + files + " shown";
}

words.addEventListener("input", filter);
choice.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
filter(); // what was typed before the page was loaded again
