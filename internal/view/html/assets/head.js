// What stands above the picture: whose story it is, and what it says in words.

function fillHead() {
  $("title").textContent = data.title;
  for (const [name, value, kind] of data.facts) {
    $("facts").append(element("div", {}, element("dt", {}, name), element("dd", { class: kind }, value)));
  }
  for (const line of data.head ?? []) $("head").append(element("p", {}, line));
  for (const { title, text } of data.findings ?? []) {
    $("findings").append(element("details", {}, element("summary", {}, title), ...text.map((line) => element("p", {}, line))));
  }
  for (const [i, service] of data.services.entries()) {
    if (service !== "" && i < 6) $("legend").append(element("span", {}, element("i", { class: "v" + i }), service));
  }
  if (spans.some((s) => s.path.length > 0)) {
    $("legend").append(element("span", {}, element("i", { class: "path" }), "critical path"));
  } else {
    $("critical").hidden = true;
  }
  $("errors").hidden = !spans.some((s) => s.failed);
  const body = element("tbody");
  for (const [keys, what] of help) {
    const cell = element("td");
    for (const k of keys) cell.append(element("kbd", {}, k), " ");
    body.append(element("tr", {}, cell, element("td", {}, what)));
  }
  $("help").append(element("table", {}, body));
}

const help = [
  [["↑", "↓"], "the span above, below"],
  [["←", "→"], "fold it or go to its parent; open it or go to its first child"],
  [["Enter"], "zoom to it"],
  [["+", "-"], "zoom in, out; also Ctrl or Shift and the wheel, or drag over the bars"],
  [["[", "]"], "earlier, later"],
  [["s"], "the start"],
  [["0"], "all"],
  [["/"], "search"],
  [["n", "N"], "the next match, the one before"],
  [["c"], "only the critical path"],
  [["e"], "only failures"],
  [["x", "z"], "open all; fold what is short"],
  [["t"], "light, dark, or as the system is"],
  [["Esc"], "close, leave"],
];
