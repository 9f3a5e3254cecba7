let timer = null, latest = 0;
const look = async () => {
  clearTimeout(timer);
  const name = props.value, turn = ++latest;
  find(".nothing").hidden = Boolean(name);
  if (!name) { find(".shelf").replaceChildren(); find(".line").textContent = ""; return; }
  const found = await ask("batch", name);
  if (turn !== latest) return;
  if (found.error) find(".line").textContent = found.error;
  else {
    find(".line").textContent = found.line;
    const now = JSON.stringify(found.runs);
    if (find(".shelf").dataset.now !== now) {
      find(".shelf").dataset.now = now;
      find(".shelf").replaceChildren(...found.runs.map((run) => article(run,
        [button("Open", `Open ${run.id}`, () => trigger("open", { id: run.id }))])));
    }
    if (found.over) return;
  }
  timer = setTimeout(look, document.hidden ? 8000 : 2000);
};
watch("value", look);
if (props.value) look();
