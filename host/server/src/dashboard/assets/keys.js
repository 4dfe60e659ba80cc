// The keyboard, and the selection of rows. All that it does can be done by links and forms, too.

const base = document.body.dataset.base;
const byId = (id) => document.getElementById(id);
const rows = () => [...document.querySelectorAll("table.rows tbody tr")];
const pages = { o: "", j: "jobs", f: "failures?state=open", l: "limits", p: "plugins" };
let prefix = "";

function current() {
  return document.activeElement?.closest("table.rows tbody tr");
}

function step(by) {
  const all = rows();
  if (all.length === 0) return;
  const at = all.indexOf(current());
  const next = all[Math.max(0, Math.min(all.length - 1, at < 0 ? 0 : at + by))];
  const link = next.querySelector("a");
  link?.focus();
  next.scrollIntoView({ block: "nearest" });
}

function isTyping(target) {
  return target.closest?.("input:not([type=checkbox]), textarea, select, dialog[open]");
}

const acts = {
  "/": () => byId("search")?.focus(),
  "?": () => byId("help")?.showModal(),
  j: () => step(1),
  k: () => step(-1),
  x: () => current()?.querySelector("input[type=checkbox]")?.click(),
  r: () => document.querySelector("[data-key=r], .acts button.primary")?.click(),
  g: () => { prefix = "g"; },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event.target)) return;
  if (prefix === "g") {
    prefix = "";
    if (event.key in pages) {
      event.preventDefault();
      location.href = base + pages[event.key];
      return;
    }
  }
  const act = acts[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

const list = byId("list");
if (list) {
  const boxes = () => [...list.querySelectorAll("input[name=id]")];
  const all = byId("all");
  const words = byId("selected");
  const show = () => {
    const chosen = boxes().filter((box) => box.checked).length;
    if (words) words.textContent = chosen === 0 ? "With the selected:" : `${chosen} selected:`;
    if (all) {
      all.checked = chosen > 0 && chosen === boxes().length;
      all.indeterminate = chosen > 0 && !all.checked;
    }
    list.querySelectorAll("button[name=act]").forEach((button) => { button.disabled = chosen === 0; });
  };
  all?.addEventListener("change", () => { boxes().forEach((box) => { box.checked = all.checked; }); show(); });
  list.addEventListener("change", show);
  addEventListener("pageshow", show);
  show();
}

const fresh = byId("fresh");
fresh?.addEventListener("click", (event) => { event.preventDefault(); location.reload(); });
