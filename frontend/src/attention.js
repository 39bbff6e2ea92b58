// Where a token looks: tokens to pick, layers x heads, heat over the frames, before and after. See lib/attentionpanel.js.
import { asking } from "./lib/ask.js";
import { attentionPanel } from "./lib/attentionpanel.js";
import { h } from "./lib/dom.js";
import { Picks } from "./lib/picks.js";

/**
 * data: { shown: one view } or { choices: { sample: one view }, empty: "how to get others" } with the pick `sample`;
 * one view is what Python's attention_payload.state makes.
 *
 * @param {import("./lib/types.js").Context} context
 */
function render({ model, el }) {
  const picks = new Picks(model);
  const { ask, close } = asking(model);
  const root = h("div", { class: "wb" });
  el.append(root);
  /** @type {{ close: () => void } | null} */
  let panel = null;

  function build() {
    panel?.close();
    panel = null;
    const { shown, choices, empty = "" } = model.get("data");
    const sample = picks.get("sample") ?? null;
    const data = shown ?? choices?.[sample];
    if (!data) {
      root.replaceChildren(h("p", { class: "wb-note" }, sample === null ? empty : `${sample}: ${empty}`));
      return;
    }
    const key = shown ? null : sample;
    const place = h("div", {});
    root.replaceChildren(place);
    panel = attentionPanel({ data, place, picks, ask, sample: key });
  }
  picks.watch((changed) => {
    if (changed.has("sample") && !model.get("data").shown) build();
  });
  model.on("change:data", build);
  build();
  return () => (panel?.close(), picks.close(), close(), model.off("change:data", build));
}

export default { render };
