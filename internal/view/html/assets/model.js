// The spans as they came, with what the page derives from them. Times are in nanoseconds
// since the beginning of the story; durations in nanoseconds.

const data = JSON.parse(document.getElementById("data").textContent);

const spans = data.spans.map((s, index) => ({
  index,
  name: s.n, title: s.t ?? s.n, about: s.b ?? "",
  parent: s.p ?? -1, level: 1, children: [],
  known: s.s !== undefined, from: s.s ?? 0, to: (s.s ?? 0) + (s.d ?? 0),
  service: s.v ?? 0, trace: s.r ?? 0, id: s.i ?? "",
  failed: !!s.f, expected: !!s.x, absent: !!s.o, linked: !!s.l,
  code: s.c ?? "", message: s.m ?? "",
  attributes: s.a ?? [], events: s.e ?? [], path: s.k ?? [],
  below: 0, open: true, brief: false, dull: false, text: undefined,
}));

// Parents come before their children.
const roots = [];
for (const s of spans) {
  const up = spans[s.parent];
  s.level = up ? up.level + 1 : 1;
  (up ? up.children : roots).push(s);
}
for (const s of spans.toReversed()) {
  const up = spans[s.parent];
  if (up) up.below += s.below + 1;
}

// The time of the whole story, and of its start. A guest's spans may claim any time.
const whole = data.whole ? { from: data.whole[0], to: Math.max(data.whole[1], data.whole[0] + 1) } : extent(spans.filter((s) => s.known));
const begin = data.start ? { from: data.start[0], to: Math.max(data.start[1], data.start[0] + 1) } : whole;

function extent(some) {
  let from = Infinity, to = -Infinity;
  for (const s of some) {
    from = Math.min(from, s.from);
    to = Math.max(to, s.to);
  }
  return from < Infinity ? { from, to: Math.max(to, from + 1) } : { from: 0, to: 1 };
}

// self returns how long a span lasted without any of its children.
function self(s) {
  let until = s.from, covered = 0;
  for (const c of s.children.filter((c) => c.known).sort((a, b) => a.from - b.from)) {
    const from = Math.max(c.from, until), to = Math.min(c.to, s.to);
    if (to > from) covered += to - from;
    until = Math.max(until, to);
  }
  return s.to - s.from - covered;
}

const onPath = (s) => s.path.reduce((sum, [from, to]) => sum + to - from, 0);

// has reports whether a text in lower case is anywhere in what was recorded of a span.
function has(s, wanted) {
  s.text ??= [s.name, s.title, s.about, data.services[s.service], s.code, s.message, s.id,
    ...s.attributes.flat(), ...s.events.flatMap(([, name, attributes]) => [name, ...attributes.flat()])].join("\n").toLowerCase();
  return s.text.includes(wanted);
}

// fold leaves out what is short and deep, as the picture in a terminal does: below the
// third level, spans in which nothing failed and nothing took a hundredth of the start.
// The dull children of a brief span share one row.
function fold() {
  const short = (begin.to - begin.from) / 100;
  for (const s of spans.toReversed()) {
    const dull = s.children.every((c) => c.dull);
    s.brief = s.level >= 3 || s.children.some((c) => c.expected);
    s.open = s.level < 3 || !dull;
    s.dull = dull && !s.failed && !s.absent && (s.level > 3 || s.expected) && s.to - s.from < short;
  }
}

// rowsOf returns what has a row below an open span: its children, and a fold of the dull
// ones, { fold: spans, of: the parent }. A single one is not folded.
function rowsOf(s) {
  const dull = s.brief ? s.children.filter((c) => c.dull) : [];
  if (dull.length < 2) return s.children;
  return [...s.children.filter((c) => !c.dull), { index: "f" + s.index, fold: dull, of: s, level: s.level + 1, children: [], path: [] }];
}

// duration formats a length of time in three digits, as the tool does.
function duration(ns) {
  if (ns < 0) return "-" + duration(-ns);
  const three = (v) => v.toFixed(v < 9.995 ? 2 : v < 99.95 ? 1 : 0);
  if (ns < 1e3) return Math.round(ns) + "ns";
  if (ns < 999.5e3) return three(ns / 1e3) + "µs";
  if (ns < 999.5e6) return three(ns / 1e6) + "ms";
  if (ns < 59.95e9) return three(ns / 1e9) + "s";
  const s = Math.round(ns / 1e9), pad = (n) => String(n).padStart(2, "0");
  if (s < 3600) return `${Math.floor(s / 60)}m${pad(s % 60)}s`;
  if (s < 86400) return `${Math.floor(s / 3600)}h${pad(Math.floor(s / 60) % 60)}m`;
  return `${Math.floor(s / 86400)}d${pad(Math.floor(s / 3600) % 24)}h`;
}
