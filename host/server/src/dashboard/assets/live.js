// What is live on a page: parts that the host sends again, rows that changed, lines of a log, the number of newer jobs.
// No row is ever added or moved: newer jobs are announced, and come with a press of the announcement.

const page = document.body.dataset;
const pending = new Map();          // the last word on each part and row wins; nothing queues
const PACE_MS = 250;
const LINES_MAX = 2000;
let source;
let timer;
let tries = 0;

const byId = (id) => document.getElementById(id);

function say(text) {
  const link = byId("link");
  if (link && link.textContent !== text) link.textContent = text;
}

// A part that the visitor is in, with the keyboard or a selection, is left alone until they have left it. A box that has the focus
// only so that it can be scrolled gets the focus back.
function isInUse(element) {
  const chosen = getSelection();
  const selects = chosen && !chosen.isCollapsed && element.contains(chosen.anchorNode);
  const focused = document.activeElement;
  return selects || (focused !== element && element.contains(focused) && !focused.matches("[tabindex]"));
}

// Rows under the pointer do not move.
const isPointedAt = (element) => element.querySelector("tr:hover") !== null;

function fragment(html) {
  const template = document.createElement("template");
  template.innerHTML = html;        // written by the host, which has escaped what others wrote
  return template.content;
}

function setPart(id, html) {
  const element = byId(id);
  if (!element || isInUse(element) || isPointedAt(element)) return !element;
  const boxes = [...element.querySelectorAll("[tabindex]")];
  const scrolled = boxes.map((box) => box.scrollTop);
  const focused = boxes.indexOf(document.activeElement);
  element.replaceChildren(fragment(html));
  element.querySelectorAll("[tabindex]").forEach((box, at) => {
    box.scrollTop = scrolled[at] ?? 0;
    if (at === focused) box.focus({ preventScroll: true });
  });
  return true;
}

function setRow(id, html) {
  const row = byId(id);
  const next = fragment(html).querySelector("tr");
  if (!row || !next) return true;
  if (isInUse(row) && !row.contains(document.activeElement)) return false;
  // Cell by cell, so that a selected row stays selected, and a focused link focused.
  [...next.cells].forEach((cell, at) => {
    const old = row.cells[at];
    if (!old || old.classList.contains("pick") || old.innerHTML === cell.innerHTML) return;
    if (old.contains(document.activeElement)) {
      const why = old.querySelector(".why");
      if (why) why.textContent = cell.querySelector(".why")?.textContent ?? "";
    } else old.replaceChildren(...cell.childNodes);
  });
  return true;
}

function frame() {
  timer = undefined;
  for (const [key, change] of pending) if (change()) pending.delete(key);
  if (pending.size > 0) timer = setTimeout(frame, 1000);
  if (source?.readyState === EventSource.OPEN) say(pending.size > 0 ? "paused while in use" : "live");
}

function later(key, change) {
  pending.set(key, change);
  timer ??= setTimeout(frame, PACE_MS);
}

function append(id, html) {
  const log = byId(id);
  if (!log) return;
  const last = Number(log.lastElementChild?.dataset.n ?? 0);
  const isAtEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  for (const line of [...fragment(html).children]) if (Number(line.dataset.n) > last) log.append(line);
  while (log.childElementCount > LINES_MAX) log.firstElementChild.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function announce({ count, more }) {
  const fresh = byId("fresh");
  if (!fresh) return;
  fresh.textContent = more ? `${count}+ new` : `${count} new`;
  fresh.hidden = count === 0;
}

function address() {
  const url = new URL(page.live, location.href);
  const last = byId("log")?.lastElementChild?.dataset.n;
  if (last && url.searchParams.has("after")) url.searchParams.set("after", last);
  return url;
}

function open() {
  if (source || document.hidden || !page.live) return;
  source = new EventSource(address());
  const on = (name, handle) => source.addEventListener(name, ({ data }) => handle(JSON.parse(data)));
  on("hello", ({ mark }) => {
    tries = 0;
    say("live");
    document.querySelectorAll("input[name=mark]").forEach((field) => { field.value = mark; });
  });
  on("part", ({ id, html }) => later(id, () => setPart(id, html)));
  on("row", ({ id, html }) => later(id, () => setRow(id, html)));
  on("append", ({ id, html }) => append(id, html));
  on("fresh", announce);
  // The job has ended: what is left that changes is the sentence of health.
  on("end", () => { close(); page.live = `${page.base}live/health?depth=2`; open(); });
  source.addEventListener("error", () => {
    say("not connected");
    if (source?.readyState !== EventSource.CLOSED) return;
    // An answer that is an error ends the source for good.
    close();
    askWhetherSignedOut();
    setTimeout(open, Math.min(30_000, 500 * 2 ** tries++) * (0.5 + Math.random()));
  });
}

// Where the session is over, no stream comes back: only the visitor can sign in.
async function askWhetherSignedOut() {
  const answer = await fetch(address(), { method: "HEAD", headers: { accept: "text/event-stream" } }).catch(() => undefined);
  const link = byId("link");
  if (answer?.status !== 401 || !link) return;
  const again = document.createElement("a");
  again.href = location.href;
  again.textContent = "Sign in again";
  link.replaceChildren(again);
}

function close() {
  source?.close();
  source = undefined;
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
addEventListener("pagehide", close);
addEventListener("pageshow", open);
open();

// Where the navigation is a bar that scrolls, it shows the page that is open.
const side = document.querySelector(".side");
const here = side?.querySelector("[aria-current]");
if (here && here.offsetLeft + here.offsetWidth > side.clientWidth) {
  side.scrollLeft = here.offsetLeft - (side.clientWidth - here.offsetWidth) / 2;
}

// Times grow old where nothing else changes.
function length(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

// The host's clock, by which all times are, may differ from this machine's.
const ahead = Date.now() - Number(page.now ?? Date.now());

function age() {
  if (document.hidden) return;
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const seconds = Math.round((Date.now() - ahead - Date.parse(time.dateTime)) / 1000);
    const text = seconds < 0 ? `in ${length(-seconds)}` : seconds === 0 ? "now" : `${length(seconds)} ago`;
    if (time.textContent !== text) time.textContent = text;
  }
}
setInterval(age, 5000);
