import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";
import { unpack, valueOf } from "../src/lib/arrays.js";
import { asking } from "../src/lib/ask.js";
import { lookUpTable, number } from "../src/lib/colour.js";
import { Picks } from "../src/lib/picks.js";
import { PageModel } from "../src/page.js";

const pack = (bytes, shape, type = "u1") => ({ bytes: deflateSync(Buffer.from(bytes)).toString("base64"), shape, type, low: 0, high: 2.54 });
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test("an array comes back as it was packed", async () => {
  const { data, shape } = await unpack(pack([0, 1, 254, 255], [2, 2]));
  assert.deepEqual([...data], [0, 1, 254, 255]);
  assert.deepEqual(shape, [2, 2]);
  const floats = await unpack(pack(new Uint8Array(new Float32Array([1.5, NaN]).buffer), [2], "f4"));
  assert.equal(floats.data[0], 1.5);
  assert.ok(Number.isNaN(floats.data[1]));
});

test("an array of another size than its shape says is refused", async () => {
  await assert.rejects(unpack(pack([1, 2, 3], [2, 2])), /4 numbers came with 3/);
});

test("byte 255 is not visible, never a number", () => {
  assert.ok(Number.isNaN(valueOf(255, { low: 0, high: 1 })));
  assert.equal(valueOf(254, { low: 0, high: 2.54 }), 2.54);
  assert.equal(valueOf(127, { low: -1, high: 1 }), 0);
  assert.equal(number(NaN), "not visible");
  assert.equal(number(-0.25), "−0.25");
});

test("a colour scale has 255 opaque colours and a transparent one", () => {
  const rgb = new Uint8Array(768).map((_, i) => i % 256);
  const table = lookUpTable(Buffer.from(rgb).toString("base64"));
  assert.equal(table[1], ((255 << 24) | (5 << 16) | (4 << 8) | 3) >>> 0);
  assert.equal(table[255], 0);
});

test("picks are local at once and reach Python at most four times a second", async () => {
  const model = new PageModel({ picks: { layer: 1 } });
  const seen = [];
  let sent = 0;
  model.save_changes = () => sent++;
  const picks = new Picks(model, { layer: 0, head: 2 });
  picks.watch((changed) => seen.push([...changed]));
  assert.equal(picks.get("layer"), 1);
  for (let i = 0; i < 100; i++) picks.set({ layer: i });
  assert.equal(picks.get("layer"), 99);
  assert.equal(seen.length, 100);
  await pause(700);
  assert.ok(sent >= 1 && sent <= 3, `${sent} messages for 100 moves in 0.7 s`);
  assert.equal(model.get("picks").layer, 99);
  model.set("picks", { layer: 5, head: 2 });
  assert.equal(picks.get("layer"), 5);
  picks.close();
});

test("closing sends what was not sent yet", () => {
  const model = new PageModel({ picks: {} });
  const picks = new Picks(model);
  picks.set({ frame: 3 });
  picks.close();
  assert.equal(model.get("picks").frame, 3);
});

test("a page answers what it carries and says so when it does not", async () => {
  const model = new PageModel({ answers: async () => ({ '{"head":3}': { rows: 1 } }) });
  const { ask, close } = asking(model);
  assert.deepEqual(await ask({ head: 3 }), { rows: 1 });
  await assert.rejects(ask({ head: 4 }), /does not carry/);
  close();
});
