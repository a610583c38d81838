"use strict";
// Finds lines of the log, and hides a stream. Without it, the page shows everything.
const byId = (id) => document.getElementById(id);
const find = byId("find");
if (find) {
  const lines = Array.from(document.querySelectorAll("#log p"), (line) => [line, line.textContent.toLowerCase()]);
  let timer;
  const show = () => {
    const wanted = find.value.toLowerCase();
    const hidden = { o: !byId("out").checked, e: !byId("err").checked };
    let found = 0;
    for (const [line, text] of lines) {
      const hide = Boolean(hidden[line.className]) || !text.includes(wanted);
      if (line.hidden !== hide) line.hidden = hide;
      if (!hide) found += 1;
    }
    byId("count").textContent = found === lines.length ? "" : `${found} of ${lines.length} lines`;
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(show, 150);
  };
  find.addEventListener("input", soon);
  byId("out").addEventListener("change", show);
  byId("err").addEventListener("change", show);
  byId("times").addEventListener("change", (event) => byId("log").classList.toggle("times", event.target.checked));
}
