// The photos to compare: chosen or dropped, sent one by one, listed, each to be taken out again.
// Runs as js_on_load of the gr.HTML that holds the macro `intakes`; `element`, `trigger` and `upload` are Gradio's.
const [stage, list, input] = ["stage", "list", "choose"].map((name) => element.querySelector(`[data-part="${name}"]`));
const { limit, heic, most } = stage.dataset;
const page = { photos: [], truth: () => document.querySelector("#truth input")?.value ?? "" };
window.pawmatchCompare = page;

function show() {
  list.replaceChildren(...page.photos.map((photo, index) => {
    const [row, button] = ["li", "button"].map((kind) => document.createElement(kind));
    Object.assign(button, { type: "button", textContent: "×", ariaLabel: `${stage.dataset.remove} ${photo.orig_name}` });
    button.addEventListener("click", () => { page.photos.splice(index, 1); show(); });
    row.append(photo.orig_name, " ", button);
    return row;
  }));
}

page.set = (photos) => {
  page.photos = (photos ?? []).map((photo) => ({ ...photo, meta: { _type: "gradio.FileData" } }));
  show();
};
page.busy = (is) => { for (const button of element.querySelectorAll("[data-do]")) button.disabled = is; };

// Names for what all photos show; what was typed stays.
page.offer = (names) => {
  document.getElementById("truth-names").replaceChildren(...(names ?? []).map((name) => new Option(name, name)));
};

async function take(files) {
  page.busy(true);
  trigger("chosen"); // names are asked for now, not with a page that may be left at once
  for (const file of files) {
    const strange = /^image\/hei[cf]/.test(file.type) || /\.hei[cf]$/i.test(file.name);
    const refused = file.size > limit || (strange ? heic === "no" : !file.type.startsWith("image/"));
    const sent = refused || page.photos.length >= most ? null : await upload(file).catch(() => null);
    if (sent) page.set([...page.photos, { path: sent.path, url: sent.url, orig_name: file.name }]);
    else trigger("refused", { name: file.name, size: file.size });
  }
  page.busy(false);
}

for (const kind of ["dragover", "drop"]) {
  stage.addEventListener(kind, (event) => {
    event.preventDefault();
    stage.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
input.addEventListener("change", () => { take([...input.files]); input.value = ""; });
element.addEventListener("click", ({ target }) => {
  const act = target.closest("[data-do]")?.dataset.do;
  if (act === "choose") input.click();
  else if (act) {
    page.busy(true);
    trigger(act === "compare" ? "compare" : "drawings");
  }
});
