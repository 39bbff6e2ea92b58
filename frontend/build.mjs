// Bundles every entry of src/ (not src/lib) into workbench/views/static, one ES module a view.
// `node build.mjs --check` writes nothing and fails when what is committed is not what the sources give.
import { readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "../workbench/views/static");
const entries = (await readdir(join(here, "src"))).filter((name) => /\.(js|css)$/.test(name));

/** @param {string[]} names @param {"esm" | "iife"} format */
const bundle = (names, format) =>
  build({
    entryPoints: names.map((name) => join(here, "src", name)),
    outdir: out,
    bundle: true,
    format,
    minify: true,
    charset: "utf8",
    target: "es2022",
    legalComments: "none",
    write: false,
  });
// page.js is a plain script: modules wait until the whole page has been read
const isPage = (/** @type {string} */ name) => name === "page.js";
const results = [await bundle(entries.filter((name) => !isPage(name)), "esm"), await bundle(entries.filter(isPage), "iife")];

let stale = 0;
for (const file of results.flatMap((result) => result.outputFiles)) {
  const name = file.path.slice(out.length + 1);
  if (process.argv.includes("--check")) {
    const committed = await readFile(file.path, "utf8").catch(() => "");
    if (committed !== file.text) {
      console.error(`${name} is not what its sources give: run \`npm run build\` in frontend/`);
      stale += 1;
    }
  } else {
    await writeFile(file.path, file.text);
    console.log(`${name.padEnd(24)} ${(file.contents.length / 1024).toFixed(1)} KiB`);
  }
}
process.exit(stale ? 1 : 0);
