"use strict";

// The figure of idea.md: one step of a decoder that attends to nine cells, with weights set by hand.

const COLOURS = { red: "#d5332e", green: "#2f9e44", blue: "#1c7ed6", yellow: "#f2b705" };
const NAMES = Object.keys(COLOURS);
const EXPECTED = [0.9, 0.4, 0.1, -0.3]; // the logits of the locked decoder: what text alone made likely
const STATES = ["locked", "attached", "unlocked", "finetuned"];
const SAID = {
  locked: "Locked: nothing is computed for the picture.",
  attached: "Attached: the bridge has weights, and the decoder does not ask it.",
  unlocked: "Unlocked: the bridge is asked, and its output projection is zero.",
  finetuned: "Finetuned: the bridge has learned where to look, and what to say about it.",
};

function softmax(scores) {
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// What the decoder attends to and expects. `trained` runs from 0 to 1.
function step(state, place, colour, trained) {
  const asked = state === "unlocked" || state === "finetuned";
  const learned = state === "finetuned" ? trained : 0;
  const scores = Array.from({ length: 9 }, (_, cell) => 6 * learned * (cell === place ? 1 : 0.12 * Math.sin(5 * cell)));
  const attention = softmax(scores);
  const value = NAMES.map((_, number) => (number === colour ? attention[place] : 0));
  const added = value.map((one) => 6 * learned * one); // by W_o, which is 0 before training
  const logits = asked ? EXPECTED.map((logit, number) => logit + added[number]) : EXPECTED;
  return { attention: asked ? attention : null, logits, difference: Math.max(...logits.map((logit, i) => Math.abs(logit - EXPECTED[i]))) };
}

function element(parent, tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  parent.append(made);
  return made;
}

function build(root) {
  const now = { state: "locked", place: 4, colour: 2, trained: 1 };
  root.replaceChildren();
  const states = element(root, "div", "locking-states");
  const buttons = STATES.map((state) => {
    const button = element(states, "button", "", state);
    button.addEventListener("click", () => { now.state = state; draw(); });
    return button;
  });
  const parts = element(root, "div", "locking-parts");
  const picture = element(parts, "div");
  element(picture, "h3", "", "The picture, and where the decoder attends");
  const grid = element(picture, "div", "locking-grid");
  const cells = Array.from({ length: 9 }, (_, cell) => {
    const button = element(grid, "button");
    button.addEventListener("click", () => {
      if (cell === now.place) now.colour = (now.colour + 1) % NAMES.length;
      now.place = cell;
      draw();
    });
    return button;
  });
  element(picture, "small", "", "Click a cell to move the shape, and the shape to change its colour.");
  const expected = element(parts, "div");
  element(expected, "h3", "", "The word after “a …”");
  const bars = NAMES.map((name) => {
    const bar = element(expected, "div", "locking-bar");
    element(bar, "span", "", name);
    const fill = element(element(bar, "span", "track"), "span", "fill");
    fill.style.background = COLOURS[name];
    return { fill, share: element(bar, "span") };
  });
  const label = element(expected, "label", "", "Training, from none to all of it");
  const slider = element(label, "input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.01, value: now.trained });
  slider.addEventListener("input", () => { now.trained = Number(slider.value); draw(); });
  const said = element(root, "output");

  function draw() {
    const { attention, logits, difference } = step(now.state, now.place, now.colour, now.trained);
    buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(STATES[number] === now.state)));
    cells.forEach((cell, number) => {
      const here = number === now.place;
      cell.style.background = attention ? `rgba(217, 115, 13, ${(0.9 * attention[number]).toFixed(3)})` : "none";
      const share = attention ? `, attention ${attention[number].toFixed(2)}` : "";
      cell.setAttribute("aria-label", `cell ${number + 1}: ${here ? NAMES[now.colour] : "empty"}${share}`);
      cell.replaceChildren();
      if (here) element(cell, "span", "ball").style.background = COLOURS[NAMES[now.colour]];
    });
    softmax(logits).forEach((share, number) => {
      bars[number].fill.style.width = `${(100 * share).toFixed(1)}%`;
      bars[number].share.textContent = share.toFixed(2);
    });
    label.hidden = now.state !== "finetuned";
    said.textContent = `${SAID[now.state]} Largest difference from the locked logits: ${difference === 0 ? "0" : difference.toFixed(2)}.`;
  }
  draw();
}

const place = document.getElementById("locking");
if (place) build(place);
