// The panel of the span that was picked.

function pick(s) {
  state.picked = s ? s.index : -1;
  const panel = $("details");
  panel.hidden = !s;
  if (s) {
    panel.replaceChildren(...describe(s));
    document.querySelector("main").scrollIntoView({ block: "nearest" });
    const i = rows.indexOf(s);
    if (i >= 0) {
      const top = i * height;
      if (top < scroller.scrollTop) scroller.scrollTop = top - 2 * height;
      if (top + height > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top - scroller.clientHeight + 3 * height;
    }
  }
  draw();
}

function table(pairs) {
  const body = element("tbody");
  for (const [key, value] of pairs) {
    body.append(element("tr", {}, element("td", {}, key), element("td", {}, value)));
  }
  return element("table", {}, body);
}

function describe(s) {
  const close = element("button", { class: "close", title: "close (Esc)", "aria-label": "close" }, "×");
  close.addEventListener("click", () => pick());
  const out = [close, element("h2", {}, s.name || s.title)];
  if (s.failed) out.push(element("div", { class: "failed" }, [s.code, s.message].filter(Boolean).join(": ") || "failed"));
  if (s.expected) out.push(element("div", {}, `an expected failure${s.code ? ": " + s.code : ""}`));
  if (s.known && !s.absent) {
    const times = [["begins at", duration(s.from)], ["took", duration(s.to - s.from)]];
    if (s.children.length > 0) times.push(["of that itself", duration(self(s))]);
    if (s.path.length > 0) times.push(["on the critical path", duration(onPath(s))]);
    times.push(["clock", new Date(data.epoch / 1e6 + s.from / 1e6).toISOString()]);
    out.push(table(times));
  }
  out.push(element("h3", {}, "span"), table([
    ["service", data.services[s.service]], ["trace", data.traces[s.trace] ?? ""], ["span", s.id],
    ...(s.linked ? [["parent", "by a link: it is in another trace"]] : []), ["spans below", String(s.below)],
  ]));
  if (s.attributes.length > 0) out.push(element("h3", {}, "attributes"), table(s.attributes));
  for (const [t, name, attributes] of s.events) {
    out.push(element("h3", {}, `event at ${duration(t)}: ${name}`), table(attributes));
  }
  return out;
}
