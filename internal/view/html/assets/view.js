// The part of the time that is shown, and the rows.

const view = { from: begin.from, to: begin.to };
const state = { picked: -1, found: new Set(), wanted: "", only: "" };

const least = 100; // nanoseconds that the page shows at least

function show(from, to) {
  const most = (whole.to - whole.from) * 1.04 + 1;
  let length = Math.min(Math.max(to - from, least), most);
  let at = from + (to - from - length) / 2;
  at = Math.min(Math.max(at, whole.from - most * 0.02), whole.to + most * 0.02 - length);
  view.from = at;
  view.to = at + length;
  draw();
}

function margin({ from, to }, part = 0.02) {
  const room = (to - from) * part;
  show(from - room, to + room);
}

// zoom changes the scale about a moment, which stays where it is.
function zoom(factor, at = (view.from + view.to) / 2) {
  show(at - (at - view.from) * factor, at + (view.to - at) * factor);
}

function pan(part) {
  const by = (view.to - view.from) * part;
  show(view.from + by, view.to + by);
}

let rows = []; // the spans that have a row, from the top

// arrange decides which spans have a row: those that are open, or in a selection the
// spans that are meant and all above them.
function arrange() {
  const meant = { critical: (s) => s.path.length > 0, errors: (s) => s.failed }[state.only];
  let wanted;
  if (meant) {
    wanted = new Set();
    for (const s of spans) {
      if (!meant(s)) continue;
      for (let up = s; up && !wanted.has(up); up = spans[up.parent]) wanted.add(up);
    }
  }
  rows = [];
  const stack = roots.toReversed();
  while (stack.length > 0) {
    const s = stack.pop();
    if (wanted && !wanted.has(s)) continue;
    rows.push(s);
    if (s.open || wanted) {
      for (const c of (wanted ? s.children : rowsOf(s)).toReversed()) stack.push(c);
    }
  }
  draw();
}

// reveal opens all above a span, selects it and moves it into sight.
function reveal(s) {
  for (let up = spans[s.parent]; up; up = spans[up.parent]) {
    up.open = true;
    up.brief &&= !s.dull;
  }
  arrange();
  if (!rows.includes(s)) {
    only("");
  }
  if (s.known && (s.to < view.from || s.from > view.to)) {
    margin(s, 1);
  }
  pick(s);
}

function only(what) {
  state.only = state.only === what ? "" : what;
  for (const name of ["critical", "errors"]) $(name).setAttribute("aria-pressed", state.only === name);
  arrange();
}
