"use strict";

const MARKS = { good: "✓", doubt: "!", bad: "✗", wait: "•" };
const KINDS = { "trust it": "good", "look twice": "doubt", "do not trust it": "bad" };
const LATE_S = 1; // lag from which it is marked
const SILENT_MS = 12000; // without a word of the run, after which the page says so
const place = (name) => document.getElementById(name);
const say = (name, text) => { place(name).textContent = text; };
let lastWord = Date.now();
let ended = false;

function length(metres) {
  if (metres >= 1e-3) return `${(metres * 1e3).toPrecision(3)} mm`;
  return metres >= 1e-6 ? `${(metres * 1e6).toPrecision(3)} µm` : `${(metres * 1e9).toPrecision(3)} nm`;
}

function showVerdict(kind, word, reason) {
  place("verdict").className = `banner ${kind}`;
  say("mark", MARKS[kind]);
  say("word", `${word}:`);
  say("reason", reason);
}

function showPicture(name, version, range, unit) {
  const image = place(name);
  image.src = `/${name}?${version}`;
  image.hidden = false;
  say(`${name}-range`, `${range[0].toFixed(2)} to ${range[1].toFixed(2)}${unit}`);
}

function showScale(bar) {
  for (const scale of document.querySelectorAll(".scale")) {
    scale.hidden = bar === null;
    if (bar === null) continue;
    scale.querySelector("b").style.width = `${100 * bar.share}%`;
    scale.querySelector("span").textContent = bar.text;
  }
}

function showFaults(state) {
  const words = Object.entries({ lost: state.lost, ...state.faults })
    .filter(([, count]) => count > 0)
    .map(([name, count]) => `${count} ${name.replaceAll("_", " ")}`);
  say("faults", words.join(", ") || "none");
  const trouble = [state.trouble, state.disk].filter(Boolean).join("; ");
  say("trouble", trouble);
  place("trouble").hidden = trouble === "";
}

function show(state) {
  lastWord = Date.now();
  ended = state.stage === "finished";
  say("source", state.source);
  say("stage", state.stage);
  const expected = state.expected ? ` of ${state.expected}` : "";
  const waiting = state.waiting ? `${state.waiting} waiting` : "";
  say("frames", `${state.frames}${expected}`);
  say("waiting", waiting);
  const rate = ended ? state.mean_rate : state.rate;
  say("rate", rate.toFixed(rate < 10 ? 1 : 0));
  say("rate-kind", ended ? "over the whole scan" : "");
  say("lag", `${state.lag_s.toFixed(1)} s`);
  say("largest-lag", `at most ${state.largest_lag_s.toFixed(1)} s`);
  place("lag").classList.toggle("late", state.lag_s > LATE_S);
  if (state.shape) {
    const size = state.size_m ? `${length(state.size_m[0])} × ${length(state.size_m[1])}`
      : `${state.shape[0]} × ${state.shape[1]} px`;
    say("covered", `${Math.round(100 * state.coverage)} %`);
    const pixel = state.size_m ? `, ${length(state.size_m[1] / state.shape[1])} pixels` : "";
    say("size", `of ${size}${pixel}`);
  }
  if (state.expected) {
    place("progress").hidden = false;
    place("progress").value = Math.min(1, state.frames / state.expected);
  }
  if (state.ranges) {
    showPicture("amplitude", state.version, state.ranges.amplitude, "");
    showPicture("phase", state.version, state.ranges.phase, " rad");
    showPicture("coverage", state.version, state.ranges.coverage, "");
    place("phase-bar").className = `bar ${state.colours.phase}`;
    showScale(state.bar);
  }
  showFaults(state);
  const { level, reasons } = state.verdict;
  const word = ended || level === "wait" ? level : `${level} so far`;
  showVerdict(KINDS[level] ?? "wait", word, reasons.join("; "));
  say("result", state.result ? `The final image is in ${state.result}` : "");
  document.title = `${word}: ${state.frames} frames`;
}

const events = new EventSource("/events");
events.onmessage = (event) => {
  const state = JSON.parse(event.data);
  if (state.stage) show(state);
};
events.onerror = () => {
  if (ended) events.close();
};
setInterval(() => {
  const gone = events.readyState !== EventSource.OPEN;
  if (ended || !(gone || Date.now() - lastWord > SILENT_MS)) return;
  if (gone) showVerdict("bad", "the run does not answer", "it has ended or was stopped; what is shown is its last state");
}, 2000);
