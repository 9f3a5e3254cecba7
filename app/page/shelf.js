/** A run as a card with a picture; `acts` are its buttons. */
const article = (run, acts) => {
  const [views, across] = run.views, rows = Math.ceil(views / across);
  const picture = !run.picture ? make("div", { class: "blank" }, run.reason || run.badge)
    : run.whole ? tile(run.picture, 0, 1, 1, run.prompt) : tile(run.picture, 0, across, rows, run.prompt);
  return make("article", { "data-run": run.id }, picture, make("div", { class: "about" },
    make("span", { class: "name" }, run.prompt),
    make("div", { class: "meta" }, make("span", {}, [run.kind, run.made].filter(Boolean).join(" · ")),
      make("span", { class: "badge", "data-state": run.state }, run.badge)),
    make("div", { class: "acts" }, ...acts)));
};
const button = (label, about, act, kind = "") =>
  make("button", { type: "button", class: "plain " + kind, "aria-label": about, onclick: act }, label);
