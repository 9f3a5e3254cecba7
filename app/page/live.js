const PACE = 1000;
let shown = null, followed = true, told = "", timer = null, asking = 0;
const scrub = find(".scrub input");
const sides = ["front", "left side", "back", "right side"];

const remember = (id) => {
  if (!id && new URL(location.href).searchParams.get("run") !== props.mine) return;
  props.mine = id;
  const here = new URL(location.href);
  if (id) here.searchParams.set("run", id); else here.searchParams.delete("run");
  if (here.href !== location.href) history.replaceState(history.state, "", here);
};

const preview = () => {
  const steps = shown.previews;
  find(".tiles").hidden = find(".scrub").hidden = steps.length === 0;
  if (!steps.length) return;
  scrub.max = steps.length - 1;
  if (followed) scrub.value = steps.length - 1;
  const step = steps[scrub.value];
  scrub.setAttribute("aria-valuetext", `step ${step}`);
  find(".at").textContent = `Step ${step}`;
  const path = `${shown.folder}/previews/step-${String(step).padStart(6, "0")}.png`;
  const box = find(".tiles");
  if (box.dataset.path === path) return;
  const sheet = new Image();
  sheet.onload = () => {
    const across = Math.max(1, Math.round(sheet.width / sheet.height));
    box.dataset.path = path;
    box.replaceChildren(...[...Array(across).keys()].map((k) =>
      tile(path, k, across, 1, `Step ${step}, ${across === 4 ? sides[k] : "view " + (k + 1)}`)));
  };
  sheet.src = address(path);
};

const comparison = (run) => {
  const [heads, ...rows] = run.table;
  find(".scroll").hidden = !heads;
  if (heads) find(".standings").replaceChildren(
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map(([name, ...cells]) => make("tr", {}, make("th", { scope: "row" }, name),
      ...cells.map((cell) => make("td", {}, cell))))));
  find(".sheet").hidden = !run.sheet;
  const stamp = run.sheet && address(run.sheet) + "?" + rows.length + "-" + Math.round(100 * run.share);
  if (run.sheet && find(".sheet").getAttribute("src") !== stamp) find(".sheet").src = stamp;
  find(".whole").hidden = !(run.page && run.over);
  if (!run.fronts.length || run.sheet) return;
  find(".tiles").hidden = false;
  find(".tiles").replaceChildren(...run.fronts.map(([name, path]) => tile(path, 0, 1, 1, name)));
};

const films = async () => {
  const found = await ask("whole", props.value), frame = find(".films");
  if (found.error) return;
  frame.srcdoc = found.html.replace("<head>", `<head><base href="${address(shown.folder)}/">`);
  frame.hidden = false;
  find(".whole").hidden = true;
};

const draw = (run) => {
  shown = run;
  find(".nothing").hidden = true;
  find(".going").hidden = false;
  find("h2").textContent = run.prompt || run.id;
  find(".live").classList.toggle("over", run.over);
  const badge = find(".badge");
  badge.textContent = run.badge;
  badge.dataset.state = run.state;
  const bar = find(".bar"), percent = Math.round(100 * run.share);
  bar.setAttribute("aria-valuenow", percent);
  bar.firstElementChild.style.width = percent + "%";
  bar.classList.toggle("busy", run.state === "running" && (run.share === 0 || run.share === 1));
  bar.hidden = run.over;
  if (find(".line").textContent !== run.line) find(".line").textContent = run.line;
  find(".reason").textContent = run.reason;
  find(".reason").hidden = !run.reason;
  find(".figures").replaceChildren(...run.figures.map(([name, value, about]) =>
    make("div", { title: about }, make("dt", {}, name), make("dd", {}, value))));
  find(".verdict").replaceChildren(...run.verdict.map((words) => make("li", {}, words)));
  comparison(run);
  find(".cancel").hidden = !run.cancel;
  find(".resume").hidden = !run.resume;
  if (run.command !== "compare") preview();
};

const stop = () => { clearTimeout(timer); timer = null; };
const look = async () => {
  stop();
  const id = props.value, turn = ++asking;
  if (!id) return;
  const run = await ask("look", id);
  if (turn !== asking || props.value !== id) return;
  if (run.error && run.silent) {
    find(".line").textContent = run.error;
    find(".going").hidden = false;
    find(".nothing").hidden = true;
  } else if (run.error) {
    remember("");
    find(".nothing").hidden = false;
    find(".going").hidden = true;
    find(".nothing p").textContent = run.error;
    return;
  } else {
    draw(run);
    const now = [run.id, run.over, run.asset].join();
    if (now !== told) { told = now; trigger("finished", { id: run.id, over: run.over, asset: run.asset, splats: run.splats }); }
    if (run.over) return;
  }
  timer = setTimeout(look, document.hidden ? 5 * PACE : PACE);
};

const begin = () => {
  remember(props.value);
  followed = true;
  told = "";
  find(".tiles").replaceChildren();
  delete find(".tiles").dataset.path;
  find(".films").hidden = true;
  if (props.value) look();
  else { stop(); find(".nothing").hidden = false; find(".going").hidden = true; trigger("finished", {}); }
};

scrub.addEventListener("input", () => { followed = +scrub.value === +scrub.max; preview(); });
const act = (button, name) => find(button).addEventListener("click", async () => {
  find(button).disabled = true;
  const answer = await ask(name, props.value);
  find(button).disabled = false;
  if (answer.error) { find(".reason").textContent = answer.error; find(".reason").hidden = false; }
  else look();
});
find(".whole").addEventListener("click", films);
act(".cancel", "cancel");
act(".resume", "resume");
document.addEventListener("visibilitychange", () => { if (!document.hidden && timer) look(); });
watch("value", begin);
if (props.value) begin();
