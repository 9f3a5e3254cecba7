let page = 0, latest = 0, doomed = null;
const box = find("input"), sure = find("dialog");

const complain = (words) => { find(".reason").textContent = words || ""; find(".reason").hidden = !words; };

const acts = (run) => [
  button("Open", `Open ${run.id}`, () => trigger("open", { id: run.id, kind: run.kind })),
  run.again ? button("Change", `Make ${run.id} again with changes`, () => trigger("again", { id: run.id })) : "",
  run.resume ? button("Go on", `Go on with ${run.id}`, async () => {
    const answer = await ask("resume", run.id);
    complain(answer.error);
    if (!answer.error) trigger("open", { id: run.id, kind: run.kind });
  }) : "",
  run.over ? button("Delete", `Delete ${run.id}`, () => {
    doomed = run.id;
    sure.querySelector("p").textContent = `Delete “${run.prompt}” (${run.id}) with all its files? There is no way back.`;
    sure.showModal();
  }, "danger") : "",
];

const load = async () => {
  const turn = ++latest;
  const found = await ask("runs", { text: box.value, page });
  if (turn !== latest) return;
  complain(found.error);
  if (found.error) return;
  page = found.page;
  find("[role=status]").textContent = found.total === 1 ? "1 run" : `${found.total} runs`;
  find(".shelf").replaceChildren(...found.runs.map((run) => article(run, acts(run))));
  find(".pages").hidden = found.pages < 2;
  find(".back").disabled = page === 0;
  find(".next").disabled = page >= found.pages - 1;
};

let pause = null;
box.addEventListener("input", () => { clearTimeout(pause); page = 0; pause = setTimeout(load, 250); });
find(".back").addEventListener("click", () => { page -= 1; load(); });
find(".next").addEventListener("click", () => { page += 1; load(); });
sure.querySelector(".no").addEventListener("click", () => sure.close());
sure.querySelector(".yes").addEventListener("click", async () => {
  sure.close();
  const answer = await ask("remove", doomed);
  complain(answer.error);
  load();
});
watch("value", load);
load();
