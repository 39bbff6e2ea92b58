// Questions to Python ("head 3 of layer 7, please"), answered as JSON; an exported page answers what it carries.

/** @typedef {import("./types.js").Model} Model */

const PATIENCE_MS = 20_000;
let last = 0;

/**
 * @param {Model} model
 * @returns {{ ask: (question: Record<string, any>) => Promise<any>, close: () => void }}
 */
export function asking(model) {
  /** @type {Map<string, { resolve: (value: any) => void, reject: (error: Error) => void, patience: ReturnType<typeof setTimeout> }>} */
  const open = new Map();
  const listen = (/** @type {any} */ message) => {
    const waiting = open.get(message?.answers);
    if (!waiting) return;
    open.delete(message.answers);
    clearTimeout(waiting.patience);
    if (message.error) waiting.reject(new Error(message.error));
    else waiting.resolve(message.answer);
  };
  model.on("msg:custom", listen);
  return {
    ask: (question) =>
      new Promise((resolve, reject) => {
        const id = `${Date.now()}-${++last}`;
        const patience = setTimeout(() => {
          open.delete(id);
          reject(new Error("the kernel does not answer; run the cell again to connect anew. What is shown stays usable"));
        }, PATIENCE_MS);
        open.set(id, { resolve, reject, patience });
        model.send({ asks: id, question });
      }),
    close: () => {
      model.off("msg:custom", listen);
      for (const { patience } of open.values()) clearTimeout(patience);
      open.clear();
    },
  };
}
