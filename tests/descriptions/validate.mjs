// What does AsyncAPI's own parser say about documents?
//
// Reads one JSON object from its input, {name: document text}, and prints one, {name: [{severity, code, message, path}]}.
// Severities are those of Spectral: 0 error, 1 warning, 2 information, 3 hint.

import { Parser } from "@asyncapi/parser";
import { readFileSync } from "node:fs";

const documents = JSON.parse(readFileSync(0, "utf-8"));
const result = {};
for (const [name, text] of Object.entries(documents)) {
  const { document, diagnostics } = await new Parser().parse(text);
  result[name] = diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join(".") }));
  if (document === undefined && !result[name].some(({ severity }) => severity === 0)) {
    result[name].push({ severity: 0, code: "no-document", message: "the parser gave no document and no reason", path: "" });
  }
}
process.stdout.write(JSON.stringify(result));
