// The page of lockdec play. Whatever comes from files or people is set as text, never as HTML.

const FULL_COLOUR = 4; // attention this many times the uniform weight, or more, has full colour
const FULL_BAR = 6; // nats of evidence that fill the bar of a word
const SOUNDS = /\.(wav|flac|ogg|oga|mp3|npy)$/i; // what the server reads; other sounds are converted here
const COLOURS = ["#000000", "#ffffff", "#ea5a47", "#fcea2b", "#5c9e31", "#61b2e4", "#a57939", "#f5c9a0"];
const MOST_BYTES = 32e6;
const WAYS = {
  image: [["file", "Picture"], ["draw", "Draw"]],
  sound: [["file", "File"], ["record", "Record"]],
  text: [["write", "Text"]],
  array: [["file", "File"], ["look", "Stored id"]],
};
const INVITES = {
  image: "Drop or paste a picture, or",
  sound: "Drop a sound (WAV, FLAC, Ogg, MP3), or",
  array: "Drop a .npy file of states by channels, or",
};

const $ = (id) => document.getElementById(id);
const make = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const signed = (number) => `${number < -0.049 ? "\u2212" : "+"}${Math.abs(number).toFixed(1)}`;

let captioners = [];
let chosen = 0; // the captioner
let given = null; // {content: Blob or string, name, reference}
let answer = null;
let pinned = -1; // the word whose attention is shown while none is pointed at
let asking = null;
const captioner = () => captioners[chosen];

// Asking

async function fetched(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("lockdec play does not answer: is it still running in its terminal?");
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Error(told.error ?? `lockdec play failed (${response.status}): its terminal says why`);
}

function tell(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

function asked() {
  const query = new URLSearchParams({ n: $("n").value, name: given.name });
  const strategy = $("strategy").value;
  if (strategy) query.set("strategy", strategy);
  if (strategy === "beam") query.set("beams", $("beams").value);
  if (draws(strategy)) query.set("seed", $("seed").value);
  return query;
}

const draws = (strategy) => ["nucleus", "top_k", "mbr"].includes(strategy || captioner().strategy);

async function ask() {
  asking?.abort();
  if (!given) return;
  const size = given.content.size ?? 0;
  if (size > MOST_BYTES) return tell(`${given.name}: at most ${MOST_BYTES / 1e6} MB are read here`);
  const here = (asking = new AbortController());
  $("said").setAttribute("aria-busy", "true");
  try {
    const type = typeof given.content === "string" ? "text/plain; charset=utf-8" : "application/octet-stream";
    const response = await fetched(`captioners/${chosen}/captions?${asked()}`, {
      method: "POST", body: given.content, headers: { "content-type": type }, signal: here.signal,
    });
    $("what").open &&= Boolean(answer); // the first answer takes its place
    answer = await response.json();
    tell("");
    show();
  } catch (error) {
    if (error.name === "AbortError") return;
    answer = null;
    tell(error.message);
    show();
  }
  if (asking === here) $("said").removeAttribute("aria-busy");
}

function give(content, name, reference = "") {
  given = { content, name, reference };
  pinned = -1;
  return ask();
}

// Showing

function show() {
  const drawing = !$("draw").hidden;
  $("empty").hidden = Boolean(answer);
  $("result").hidden = !answer;
  $("seen").hidden = !answer || drawing;
  $("another").hidden = !answer || drawing || captioner().reads === "text";
  $("another").textContent = `another ${{ image: "picture", sound: "sound", array: "file" }[captioner().reads] ?? ""}`;
  if (!drawing && captioner().reads !== "text") for (const [way] of WAYS[captioner().reads]) {
    $(way).hidden = Boolean(answer) || !isSelected(way);
  }
  for (const button of $("examples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Boolean(given) && button.dataset.name === given.name));
  }
  if (!answer) return;
  showInput(drawing);
  showWords();
  $("sure").textContent =
    `confidence ${answer.confidence.toFixed(2)}, log-probability ${answer.log_prob.toFixed(2).replace("-", "\u2212")} nats`;
  const others = $("others").querySelector("ol");
  others.replaceChildren(...answer.alternatives.map((other) => {
    const line = make("li");
    line.append(make("span", other.confidence.toFixed(2), { title: "confidence" }), make("b", other.text));
    line.lastChild.style.fontWeight = "400";
    return line;
  }));
  $("others").hidden = !answer.alternatives.length;
  const beside = answer.comparison.flatMap(({ name, text, note }) => {
    const said = make("dd", text);
    said.append(make("small", note));
    return [make("dt", name), said];
  });
  $("beside").querySelector("dl").replaceChildren(...beside);
  const names = answer.comparison.map(({ name }) => name);
  $("missing").textContent = answer.missing;
  if (!answer.missing && !names.includes("shuffled")) {
    $("missing").textContent = "An export or a plug holds no inputs of its run, so there is no unrelated one and no neighbour.";
  } else if (!answer.missing && !names.includes("nearest neighbour")) {
    $("missing").textContent = "The run has kept no support set, so there is no nearest neighbour.";
  }
  showCode();
}

let cells = []; // an element for each state of the input, whose colour says how much a word attends to it

function showInput(drawing) {
  const { input, attention } = answer;
  const sheet = $("sheet");
  cells = [];
  sheet.className = { image: "picture", text: "text", sound: "wave", array: "states" }[input.kind];
  sheet.replaceChildren();
  $("veil").replaceChildren();
  $("apart").replaceChildren();
  if (input.kind === "image") {
    const frame = make("div", "", { class: "frame" });
    const picture = make("img", "", { alt: given.reference || given.name });
    picture.addEventListener("load", () => frame.style.setProperty("--ratio", picture.naturalWidth / picture.naturalHeight));
    picture.src = input.src;
    frame.append(picture);
    if (attention.grid) {
      const over = drawing ? $("veil") : make("div", "", { class: "over" });
      over.style.gridTemplateColumns = `repeat(${attention.grid.columns}, 1fr)`;
      const places = Array.from({ length: attention.states }, () => make("i"));
      const apart = places.slice(0, attention.grid.apart);
      over.replaceChildren(...places.slice(attention.grid.apart));
      if (!drawing) frame.append(over);
      if (apart.length) $("apart").append(...apart, "states of no place, such as a class token");
      cells = places;
    }
    sheet.append(frame);
  } else if (input.kind === "text") {
    const labels = attention.labels ?? [];
    if (labels.length) sheet.append(...(cells = labels.map(token)));
    else sheet.append(input.text);
  } else if (input.kind === "sound") {
    const frame = make("div", "", { class: "frame" });
    const over = make("div", "", { class: "over" });
    over.style.gridTemplateColumns = `repeat(${attention.states}, 1fr)`;
    over.style.width = `${(100 * input.heard) / input.seconds}%`;
    over.append(...(cells = Array.from({ length: attention.states }, () => make("i"))));
    frame.append(over, wave(input));
    const scale = make("div", "", { class: "scale muted" });
    scale.append(make("span", "0 s"), make("span", `${input.seconds.toFixed(1)} s`));
    sheet.append(frame, scale);
  }
  if (attention.states > 1 && !cells.length) {
    const states = Array.from({ length: attention.states }, (_, state) => make("i", "", { title: `state ${state + 1}` }));
    (input.kind === "array" ? sheet : $("apart")).append(...(cells = states));
  }
  const heard = input.kind === "sound" && input.heard < input.seconds ? `The first ${input.heard} s are heard. ` : "";
  const references = given.reference ? `Reference: ${given.reference}` : "";
  $("reference").textContent = heard + references;
  const playable = input.kind === "sound" && given.content instanceof Blob && !/\.npy$/i.test(given.name);
  URL.revokeObjectURL($("sound").src);
  $("sound").hidden = !playable;
  if (playable) $("sound").src = URL.createObjectURL(given.content);
}

// A piece of a word that goes on from the piece before it (##, as BERT writes it) is joined to that.
function token(label) {
  const joined = label.startsWith("##") && label.length > 2;
  return make("i", (joined ? label.slice(2) : label) || "\u00a0", joined ? { class: "joined" } : {});
}

function wave({ peaks }) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 -1 ${peaks.length} 2`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "the loudness of the sound over time");
  const path = document.createElementNS(space, "path");
  const loudest = Math.max(...peaks, 0.05);
  path.setAttribute("d", peaks.map((peak, x) => {
    const high = Math.max(peak / loudest, 0.012);
    return `M${x} ${-high}h.7v${2 * high}h-.7z`;
  }).join(""));
  svg.append(path);
  return svg;
}

function showWords() {
  $("caption").replaceChildren(...answer.words.map((word, place) => {
    const button = make("button", "", { "aria-pressed": "false" });
    const bar = make("i");
    bar.style.setProperty("--share", `${Math.min(100, (100 * Math.abs(word.evidence)) / FULL_BAR)}%`);
    button.append(make("span", word.text), bar, make("small", signed(word.evidence)));
    button.classList.toggle("against", word.evidence < 0);
    button.title = `p(word | input, words before it) = ${Math.exp(word.log_prob).toPrecision(2)}`;
    button.addEventListener("pointerenter", () => attend(place));
    button.addEventListener("pointerleave", () => attend(pinned));
    button.addEventListener("focus", () => attend(place));
    button.addEventListener("blur", () => attend(pinned));
    button.addEventListener("click", () => {
      pinned = pinned === place ? -1 : place;
      for (const [other, its] of [...$("caption").children].entries()) its.setAttribute("aria-pressed", String(other === pinned));
      attend(pinned);
    });
    return button;
  }));
  const evidence = "The bar of a word is its evidence in nats: how much likelier the input makes it than the words before it do alone.";
  if (!answer.words.length) $("hint").textContent = "The caption is empty.";
  else if (!answer.attention.states) $("hint").textContent = `${evidence} This bridge has no attention over the states of the input to show.`;
  else if (!cells.length) $("hint").textContent = `${evidence} The encoder gives one state, so there is no attention to show.`;
  else $("hint").textContent = `Point at a word, or tap it, to see what it attends to. ${evidence}`;
}

function attend(place) {
  if (!answer) return; // the pointer leaves a word that has just gone
  const weights = place < 0 ? null : answer.attention.weights[place];
  const kind = answer.input.kind;
  for (const [state, cell] of cells.entries()) {
    const strength = weights ? Math.min(1, (weights[state] * weights.length) / FULL_COLOUR) : 0;
    const overlaid = cell.parentElement.className === "over";
    if (overlaid) cell.style.opacity = (kind === "image" ? 0.8 : 0.7) * strength;
    else cell.style.background = strength ? `rgb(var(--heat) / ${strength * 0.85})` : "";
  }
}

function showCode() {
  const both = { python: answer.python, command: answer.command };
  const tabs = [...document.querySelectorAll("[data-code]")];
  for (const tab of tabs) tab.hidden = both[tab.dataset.code] === null;
  const tab = tabs.find((one) => one.getAttribute("aria-selected") === "true" && !one.hidden) ?? tabs[0];
  $("code").textContent = both[tab.dataset.code];
}

// Captioners and ways to give an input

const isSelected = (way) => $("ways").querySelector(`[data-way=${way}]`)?.getAttribute("aria-selected") === "true";

function turnTo(way) {
  for (const tab of $("ways").children) tab.setAttribute("aria-selected", String(tab.dataset.way === way));
  for (const panel of document.querySelectorAll(".way")) panel.hidden = panel.id !== way;
  answer = null;
  given = null;
  asking?.abort();
  $("said").removeAttribute("aria-busy");
  tell("");
  show();
  if (way === "draw") redraw();
}

function choose(number) {
  const before = captioners[chosen]?.reads;
  const kept = given;
  chosen = number;
  const { reads, seconds, strategy, facts } = captioner();
  const lending = captioner().examples.length ? chosen : captioners.findIndex((other) => other.reads === reads && other.examples.length);
  const examples = captioners[lending]?.examples ?? []; // a plug has none of its own
  const recorded = navigator.mediaDevices?.getUserMedia !== undefined;
  const ways = WAYS[reads].filter(([way]) => way !== "record" || recorded);
  if (before !== reads || !kept) {
    $("ways").replaceChildren(...ways.map(([way, name]) => {
      const tab = make("button", name, { role: "tab", "data-way": way, "aria-controls": way, "aria-selected": "false" });
      tab.addEventListener("click", () => turnTo(way));
      return tab;
    }));
    $("invite").textContent = INVITES[reads] ?? "";
    $("drop").classList.toggle("flat", reads !== "image");
    $("chosen").accept = { image: "image/*", sound: "audio/*,.npy", array: ".npy" }[reads] ?? "";
    $("limit").textContent = seconds ? `The first ${seconds} s are heard.` : "";
    turnTo(ways[0][0]);
  }
  $("strategy").replaceChildren(make("option", `of the run (${strategy})`, { value: "" }),
    ...["greedy", "beam", "nucleus", "mbr"].map((name) => make("option", name)));
  showOptions();
  $("facts").replaceChildren(...[["folder", captioner().folder], ...facts].flatMap(([label, value]) => [make("dt", label), make("dd", value)]));
  const list = $("examples").querySelector("ul");
  list.classList.toggle("lines", reads === "text");
  list.replaceChildren(...examples.map((example, place) => {
    const button = make("button", "", { "aria-pressed": "false", title: example.reference, "data-name": example.name });
    const url = `captioners/${lending}/examples/${place}`;
    if (example.text !== null) button.textContent = example.text;
    else button.append(make("img", "", { src: url, alt: example.reference, loading: "lazy" }));
    button.addEventListener("click", async () => {
      try {
        const content = example.text ?? (await (await fetched(url)).blob());
        if (reads === "image" && !isSelected("file")) turnTo("file");
        if (example.text !== null) $("words").value = example.text;
        give(content, example.name, example.reference);
      } catch (error) {
        tell(error.message);
      }
    });
    const item = make("li");
    item.append(button);
    return item;
  }));
  $("examples").hidden = !examples.length;
  $("examples").querySelector("h3").textContent = `Inputs that ${lending === chosen ? "the run" : captioners[lending]?.name} was evaluated on`;
  if (kept && before === reads) {
    given = kept;
    ask();
  }
}

function showOptions() {
  $("beams-label").hidden = $("strategy").value !== "beam";
  $("seed-label").hidden = !draws($("strategy").value);
}

// Files, texts and ids

async function take(file) {
  if (!file) return;
  const { reads, rate } = captioner();
  if (reads === "text") return give(await file.text(), file.name);
  try {
    const ready = reads === "sound" && !SOUNDS.test(file.name) ? await wav(file, rate) : file;
    if (!$("draw").hidden || !$("record").hidden) turnTo("file");
    give(ready, ready === file ? file.name : file.name.replace(/(\.\w+)?$/, ".wav"));
  } catch (error) {
    tell(`${file.name}: ${error.message}`);
  }
}

$("chosen").addEventListener("change", () => take($("chosen").files[0]).finally(() => ($("chosen").value = "")));
$("another").addEventListener("click", () => {
  turnTo([...$("ways").children].find((tab) => tab.getAttribute("aria-selected") === "true").dataset.way);
  ($("file").hidden ? $("start") : $("chosen")).focus();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) take(file);
});
$("write").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("words").value.trim()) give($("words").value.trim(), "");
  else tell("Type a text first");
});
$("words").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("write").requestSubmit();
});
$("look").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("id").value.trim()) give($("id").value.trim(), "");
  else tell("Type an id first");
});

// Drawing

const pen = $("pad").getContext("2d");
let strokes = []; // {colour, width, points: [[x, y], ...]}
let colour = COLOURS[0];
let resting = 0;

function redraw() {
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, $("pad").width, $("pad").height);
  pen.lineCap = pen.lineJoin = "round";
  for (const { colour: ink, width, points } of strokes) {
    pen.strokeStyle = ink;
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points) pen.lineTo(...point);
    pen.stroke();
  }
}

function drawn() {
  clearTimeout(resting);
  if (!strokes.length) return turnTo("draw");
  resting = setTimeout(() => $("pad").toBlob((content) => give(content, "drawing.png"), "image/png"), 350);
}

function place(event) {
  const box = $("pad").getBoundingClientRect();
  return [((event.clientX - box.left) * $("pad").width) / box.width, ((event.clientY - box.top) * $("pad").height) / box.height];
}

$("pad").addEventListener("pointerdown", (event) => {
  clearTimeout(resting);
  $("pad").setPointerCapture(event.pointerId);
  strokes.push({ colour, width: Number($("width").value), points: [place(event)] });
  redraw();
});
$("pad").addEventListener("pointermove", (event) => {
  if (!event.buttons || !strokes.length) return;
  strokes.at(-1).points.push(place(event));
  redraw();
});
$("pad").addEventListener("pointerup", drawn);
$("undo").addEventListener("click", () => (strokes.pop(), redraw(), drawn()));
$("clear").addEventListener("click", () => ((strokes = []), redraw(), drawn()));
$("colours").replaceChildren(...COLOURS.map((ink) => {
  const button = make("button", "", { role: "radio", "aria-label": `colour ${ink}`, "aria-checked": String(ink === colour) });
  button.style.background = ink;
  button.addEventListener("click", () => {
    colour = ink;
    for (const other of $("colours").children) other.setAttribute("aria-checked", String(other === button));
  });
  return button;
}));

// Recording

let recorder = null;

$("start").addEventListener("click", async () => {
  if (recorder) return recorder.stop();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const pieces = [];
    const began = performance.now();
    const label = $("start").querySelector("span");
    recorder = new MediaRecorder(stream);
    const clock = setInterval(() => {
      const passed = (performance.now() - began) / 1000;
      label.textContent = `Stop (${passed.toFixed(0)} s)`;
      if (passed >= (captioner().seconds ?? 60)) recorder?.stop();
    }, 200);
    recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
    recorder.addEventListener("stop", async () => {
      clearInterval(clock);
      for (const track of stream.getTracks()) track.stop();
      const type = recorder.mimeType;
      recorder = null;
      label.textContent = "Record";
      $("start").classList.remove("on");
      try {
        give(await wav(new Blob(pieces, { type }), captioner().rate), "recording.wav");
      } catch (error) {
        tell(error.message);
      }
    });
    recorder.start();
    label.textContent = "Stop";
    $("start").classList.add("on");
  } catch (error) {
    tell(`The browser records nothing: ${error.message}`);
  }
});

// Any sound that the browser can decode, as a WAV file of one channel in 16 bits at this rate.
async function wav(blob, rate) {
  const context = new OfflineAudioContext(1, 1, rate);
  const decoded = await context.decodeAudioData(await blob.arrayBuffer()).catch(() => {
    throw new Error("not a sound that this browser can decode");
  });
  const samples = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    decoded.getChannelData(channel).forEach((value, index) => (samples[index] += value / decoded.numberOfChannels));
  }
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const write = (at, text) => [...text].forEach((sign, index) => view.setUint8(at + index, sign.charCodeAt(0)));
  write(0, "RIFF"), write(8, "WAVEfmt "), write(36, "data");
  view.setUint32(4, 36 + 2 * samples.length, true), view.setUint32(16, 16, true);
  view.setUint16(20, 1, true), view.setUint16(22, 1, true);
  view.setUint32(24, rate, true), view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true), view.setUint16(34, 16, true);
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, index) => view.setInt16(44 + 2 * index, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([view], { type: "audio/wav" });
}

// The rest

for (const tab of document.querySelectorAll("[data-code]")) {
  tab.addEventListener("click", () => {
    for (const other of document.querySelectorAll("[data-code]")) other.setAttribute("aria-selected", String(other === tab));
    showCode();
  });
}
$("copy").addEventListener("click", async () => {
  const range = document.createRange();
  range.selectNodeContents($("code"));
  getSelection().removeAllRanges();
  getSelection().addRange(range); // so that it can be copied by hand where the browser does not let a page copy
  try {
    await navigator.clipboard.writeText($("code").textContent);
    $("copy").textContent = "copied";
  } catch {
    $("copy").textContent = "press Ctrl+C";
  }
  setTimeout(() => ($("copy").textContent = "copy"), 1500);
});
for (const id of ["n", "strategy", "beams", "seed"]) {
  $(id).addEventListener("change", () => (showOptions(), ask()));
}
$("captioner").addEventListener("change", () => choose(Number($("captioner").value)));

try {
  captioners = await (await fetched("captioners")).json();
  const short = captioners.map(({ name, folder }) => `${name} (${folder.split("/").filter(Boolean).at(-1)})`);
  const labels = new Set(short).size === short.length ? short : captioners.map(({ name, folder }) => `${name} (${folder})`);
  $("captioner").replaceChildren(...labels.map((label, place) => make("option", label, { value: place })));
  $("choose").hidden = captioners.length < 2;
  $("alone").hidden = captioners.length > 1;
  $("alone").textContent = captioners[0].folder;
  choose(0);
} catch (error) {
  tell(error.message);
}
document.documentElement.dataset.ready = "true";
