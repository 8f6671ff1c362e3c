const nav = document.getElementById("filters");
const input = nav.querySelector("input");
const buttons = [...nav.querySelectorAll("button")];
let shown = "";

function filter() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("main > section")) {
    let any = false;
    for (const item of section.querySelectorAll(".case")) {
      const text = item.querySelector("summary").textContent.toLowerCase();
      const is = (!shown || item.dataset.standing === shown) && words.every((word) => text.includes(word));
      item.hidden = !is;
      any ||= is;
    }
    section.hidden = !any;
  }
}

input.addEventListener("input", filter);
for (const button of buttons) {
  button.addEventListener("click", () => {
    shown = button.dataset.show;
    buttons.forEach((other) => other.setAttribute("aria-pressed", other === button));
    filter();
  });
}
nav.hidden = false;
