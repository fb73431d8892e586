// The photo on the page: taken, chosen, dropped, pasted or linked; sent small; cropped; kept for the way back.
// Runs as js_on_load of the gr.HTML that holds the macro `intake`; `element`, `trigger` and `upload` are Gradio's.
const one = (name) => element.querySelector(`[data-part="${name}"]`);
const [stage, image, frame, box] = ["stage", "image", "frame", "box"].map(one);
const { limit, side, heic, kept } = stage.dataset;
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const page = { photo: null, label: null, facts: null };
let original = null; // the file that was chosen, sharper than what was sent
let whole = null; // what was shown, and said of it, before a crop
let crop = [0.1, 0.1, 0.9, 0.9]; // left, top, right, bottom in shares of the photo
window.pawmatch = page;

const state = (name) => { stage.dataset.state = name; };
const name = (value) => value.orig_name || "photo.jpg";

function keep() {
  const task = [...document.querySelectorAll("#task input")].findIndex((input) => input.checked);
  if (page.photo) sessionStorage.setItem(kept, JSON.stringify({ photo: page.photo, whole, task }));
  else sessionStorage.removeItem(kept);
}

// --- in

page.show = (photo, before = null) => {
  if (!photo) { // the answer's place says why
    page.clear();
    return state("refused");
  }
  page.photo = { path: photo.path, url: photo.url, orig_name: name(photo), meta: { _type: "gradio.FileData" } };
  [page.label, whole] = [null, before];
  if (!image.getAttribute("src")) image.src = photo.url;
  one("before").hidden = true;
  state("photo");
  keep();
  trigger("photo");
};

// Another photo is on its way from the server.
page.wait = () => {
  page.clear();
  state("sending");
};

page.clear = () => {
  [page.photo, page.label, original, whole] = [null, null, null, null];
  image.removeAttribute("src");
  one("before").hidden = true;
  state("empty");
  keep();
};

function refuse(file) {
  page.clear();
  state("refused");
  trigger("refused", { name: file.name, size: file.size });
}

// The part of a picture (shares of its sides) as a JPEG file no longer than `side`, upright as the browser shows it.
async function drawn(source, file, [left, top, right, bottom] = [0, 0, 1, 1]) {
  const [width, height] = [source.width * (right - left), source.height * (bottom - top)];
  const scale = Math.min(1, side / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((length) => Math.max(1, Math.round(length * scale)));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, left * source.width, top * source.height, width, height, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.92); });
  return new File([blob], file.name.replace(/\.\w+$/, "") + ".jpg", { type: "image/jpeg" });
}

async function take(file) {
  if (!file) return;
  const strange = /^image\/hei[cf]/.test(file.type) || /\.hei[cf]$/i.test(file.name);
  if (!strange && !file.type.startsWith("image/")) return refuse(file);
  const source = await createImageBitmap(file).catch(() => null); // null: not for this browser; for the server, perhaps
  if (strange && !source && heic === "no") return refuse(file);
  const large = source && (strange || file.size > 1.5e6 || Math.max(source.width, source.height) > 2 * side);
  const sent = large ? await drawn(source, file) : file;
  if (sent.size > limit) return refuse(file);
  page.clear();
  original = source ? file : null;
  image.src = URL.createObjectURL(sent);
  await send(sent);
}

async function send(file, before = null) {
  state("sending");
  try {
    page.show({ ...(await upload(file)), orig_name: file.name }, before);
  } catch {
    refuse(file);
  }
}

const isPicture = (data) => [...(data?.files ?? [])][0];
const link = (data) => one("link") && /^https?:\/\/\S+$/.exec(data?.getData("text/plain")?.trim() ?? "")?.[0];

function open(address) {
  page.wait();
  page.link = address;
  trigger("linked");
}

document.addEventListener("paste", (event) => {
  const [file, address] = [isPicture(event.clipboardData), link(event.clipboardData)];
  if (!element.isConnected || (!file && (!address || event.target.matches?.("input, textarea")))) return;
  event.preventDefault();
  if (file) take(file);
  else open(address);
});
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    if (!element.isConnected) return;
    event.preventDefault();
    stage.classList.toggle("over", kind === "dragover");
    const address = kind === "drop" && link(event.dataTransfer);
    if (kind === "drop" && isPicture(event.dataTransfer)) take(isPicture(event.dataTransfer));
    else if (address) open(address);
  });
}
for (const input of element.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => { take(input.files[0]); input.value = ""; });
}
one("link")?.addEventListener("submit", (event) => {
  event.preventDefault();
  open(one("address").value.trim());
});

// --- crop

function place(next, keepSize = false) {
  const least = 0.12;
  let [left, top, right, bottom] = next;
  if (keepSize) {
    const [width, height] = [crop[2] - crop[0], crop[3] - crop[1]];
    [left, top] = [Math.min(Math.max(left, 0), 1 - width), Math.min(Math.max(top, 0), 1 - height)];
    [right, bottom] = [left + width, top + height];
  }
  left = Math.min(Math.max(left, 0), 1 - least);
  top = Math.min(Math.max(top, 0), 1 - least);
  crop = [left, top, Math.max(Math.min(right, 1), left + least), Math.max(Math.min(bottom, 1), top + least)];
  ["left", "top", "right", "bottom"].forEach((edge, index) => {
    box.style[edge] = `${100 * (index < 2 ? crop[index] : 1 - crop[index])}%`;
  });
}

function propose() {
  // Where the subject was found, with a little around it; the largest, if there are several.
  const found = JSON.parse(document.querySelector("#answer [data-boxes]")?.dataset.boxes ?? "[]");
  found.sort((a, b) => b[2] * b[3] - a[2] * a[3]);
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const [x, y, wide, high] = found[0] ?? [0.1 * width, 0.1 * height, 0.8 * width, 0.8 * height];
  const margin = found.length ? 0.06 : 0;
  place([x / width - margin, y / height - margin, (x + wide) / width + margin, (y + high) / height + margin]);
  state("crop");
  box.focus();
}

const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
box.addEventListener("keydown", (event) => {
  const [across, down] = (moves[event.key] ?? []).map((step) => 0.03 * step);
  if (event.key === "Enter") look();
  else if (event.key === "Escape") state("photo");
  else if (across === undefined) return;
  else if (event.shiftKey) place([crop[0], crop[1], crop[2] + across, crop[3] + down]);
  else place([crop[0] + across, crop[1] + down], true);
  event.preventDefault();
});
box.addEventListener("pointerdown", (event) => {
  const corner = event.target.dataset.corner ?? ""; // two of n, s, e, w; none: the whole box moves
  const start = { x: event.clientX, y: event.clientY, crop: [...crop] };
  const { width, height } = frame.getBoundingClientRect();
  box.setPointerCapture(event.pointerId);
  event.preventDefault();
  box.focus();
  box.onpointermove = ({ clientX, clientY }) => {
    const [across, down] = [(clientX - start.x) / width, (clientY - start.y) / height];
    const [left, top, right, bottom] = start.crop;
    if (!corner) return place([left + across, top + down], true);
    place([
      corner.includes("w") ? Math.min(left + across, right - 0.12) : left,
      corner.includes("n") ? Math.min(top + down, bottom - 0.12) : top,
      corner.includes("e") ? right + across : right,
      corner.includes("s") ? bottom + down : bottom,
    ]);
  };
  box.onpointerup = box.onpointercancel = () => { box.onpointermove = null; };
});

async function look() {
  const before = whole ?? { photo: page.photo, said: said() };
  const file = original && !whole ? original : await (await fetch(image.src)).blob();
  const source = await createImageBitmap(file).catch(() => null);
  if (!source) return state("photo");
  const part = await drawn(source, { name: name(page.photo) }, crop);
  image.src = URL.createObjectURL(part);
  await send(part, before);
}

// --- out

// What the answer says in short; nothing while there is none.
const said = () => document.querySelector("#answer .card:has([data-label]) .headline")
  ?.innerText.replace(/\s+/g, " ").trim();

page.answered = () => {
  const headline = document.querySelector("#answer .card:not(.empty, .working) .headline");
  if (!headline) return;
  if (whole && said()) {
    one("thumbnail").src = whole.photo.url;
    one("said").textContent = whole.said;
    one("now").textContent = said();
    one("before").hidden = false;
  }
  // On a phone the answer may be below the screen: whoever asked should see it without searching.
  const told = page.facts; // whoever answered a question goes on at the next one, or at what was said
  page.facts = null;
  const next = ["[aria-invalid]", ":is(.ask, .facts) button"].map((part) => document.querySelector(`#answer ${part}`));
  if (told) (next[0] ?? next[1])?.focus({ preventScroll: true });
  requestAnimationFrame(() => {
    const { top, bottom } = headline.getBoundingClientRect();
    if (top >= 0 && bottom <= innerHeight) return;
    (innerHeight > 600 && !told ? stage : headline).scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
  });
};

function explain(label) {
  page.label = label;
  for (const bar of document.querySelectorAll("#answer [data-label]")) {
    bar.setAttribute("aria-pressed", bar.dataset.label === label);
  }
  trigger("explain");
}

// An answer to a question, words, or an answer that is taken back; what was said before stands on the page.
function tell({ ask, fact, value, words }) {
  const said = [...document.querySelectorAll("#answer [data-fact]")].map(({ dataset }) => [dataset.fact, dataset.value]);
  page.facts = Object.fromEntries(said.filter(([name]) => name !== fact));
  if (ask) page.facts[ask] = value;
  if (words) page.facts.words = words;
  trigger("fact");
}

// Of the other parts of the page: bars and names to explain, answers to questions, examples to look at.
const within = (selector, event) => element.isConnected && event.target.closest?.(selector);
document.addEventListener("click", (event) => {
  const parts = ["#answer [data-label]", "#answer [data-value]", "#examples [data-index]"];
  const [bar, answer, example] = parts.map((part) => within(part, event));
  if (bar) explain(bar.dataset.label);
  if (answer) tell(answer.dataset);
  if (!example) return;
  page.wait();
  trigger("example", { index: Number(example.dataset.index) });
});
document.addEventListener("submit", (event) => {
  const words = within("#answer .words", event)?.elements.words.value.trim();
  if (words || within("#why form", event)) event.preventDefault();
  if (words) tell({ words });
});
document.addEventListener("input", (event) => { if (within("#why input", event)) event.target.setCustomValidity(""); });
document.addEventListener("change", (event) => {
  const field = within("#why input", event);
  const typed = field && field.value.trim().toLowerCase();
  if (!typed) return;
  const found = [...field.list.options].find(({ value }) => value.toLowerCase() === typed);
  if (found) return explain(found.dataset.label);
  field.setCustomValidity(field.dataset.unknown);
  field.reportValidity();
});

element.addEventListener("click", (event) => {
  const act = event.target.closest("[data-do]")?.dataset.do;
  if (act === "choose" || act === "take") one(act).click();
  else if (act === "crop") propose();
  else if (act === "cancel") state("photo");
  else if (act === "look") look();
  else if (act === "whole") { image.src = whole.photo.url; page.show(whole.photo); }
  else if (act === "clear") { page.clear(); trigger("photo"); }
});

const stored = JSON.parse(sessionStorage.getItem(kept) ?? "null");
if (stored) {
  fetch(stored.photo.url, { method: "HEAD" }).then(({ ok }) => {
    if (!ok) return sessionStorage.removeItem(kept);
    const chosen = document.querySelectorAll("#task input")[stored.task];
    if (chosen && !chosen.checked) chosen.click();
    page.show(stored.photo, stored.whole);
  });
}
