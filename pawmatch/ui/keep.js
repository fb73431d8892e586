// An answer as one picture to keep or to share, and what was asked here before, in this browser alone.
// Runs as js_on_load of the gr.HTML that holds the macro `keep`; `element` and `trigger` are Gradio's.
const part = (name) => element.querySelector(`[data-part="${name}"]`);
const [acts, wanted, list] = ["acts", "wanted", "list"].map(part);
const kept = "pawmatch-history"; // in the browser's storage: a list of answers, or nothing where none was asked for
const most = 50;
const side = 96; // pixels of a kept thumbnail
let how = "picture";
let noted = null; // the headline of the answer that was remembered last

const read = () => JSON.parse(localStorage.getItem(kept) ?? "null");

function show() {
  const entries = read();
  wanted.checked = entries !== null;
  element.querySelector('[data-do="erase"]').hidden = !entries?.length;
  list.replaceChildren(...(entries ?? []).map(({ when, name, picture }) => {
    const [row, image] = ["li", "img"].map((kind) => document.createElement(kind));
    Object.assign(image, { src: picture, alt: "" });
    row.append(image, ` ${name} `, Object.assign(document.createElement("small"), { textContent: new Date(when).toLocaleString(document.documentElement.lang) }));
    return row;
  }));
}

function note() {
  const headline = document.querySelector("#answer .card:is(.sure, .check) .headline");
  acts.hidden = !headline;
  const photo = document.querySelector("#photo img");
  if (!headline || headline === noted || !photo?.naturalWidth || read() === null) return;
  noted = headline;
  const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side });
  const [width, height] = [photo.naturalWidth, photo.naturalHeight];
  const square = Math.min(width, height);
  canvas.getContext("2d").drawImage(photo, (width - square) / 2, (height - square) / 2, square, square, 0, 0, side, side);
  const entry = { when: Date.now(), name: headline.innerText.replace(/\s+/g, " ").trim(), picture: canvas.toDataURL("image/jpeg", 0.8) };
  const others = read().filter(({ picture }, index) => index || picture !== entry.picture); // the same photo, asked on
  localStorage.setItem(kept, JSON.stringify([entry, ...others].slice(0, most)));
  show();
}

// A picture of the answer is there, at this address.
window.pawmatchKeep = async (address) => {
  if (!address) return;
  const blob = await (await fetch(address)).blob();
  const file = new File([blob], "pawmatch.jpg", { type: blob.type });
  if (how === "share" && navigator.canShare?.({ files: [file] })) {
    try {
      return await navigator.share({ files: [file], title: "pawmatch" });
    } catch (problem) {
      if (problem.name === "AbortError") return; // who asked thought better of it
    }
  }
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: file.name });
  link.click();
  URL.revokeObjectURL(link.href);
};

element.addEventListener("click", ({ target }) => {
  const act = target.closest("[data-do]")?.dataset.do;
  if (act === "erase") { localStorage.setItem(kept, "[]"); show(); }
  else if (act) { how = act; trigger("picture"); }
});
wanted.addEventListener("change", () => {
  if (wanted.checked) localStorage.setItem(kept, "[]");
  else localStorage.removeItem(kept);
  note();
  show();
});
// Where files cannot be shared, there is but one button.
if (!navigator.canShare?.({ files: [new File([], "pawmatch.jpg", { type: "image/jpeg" })] })) element.querySelector('[data-do="share"]').hidden = true;
new MutationObserver(note).observe(document.getElementById("answer"), { childList: true, subtree: true });
show();
