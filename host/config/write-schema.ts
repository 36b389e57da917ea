/** Build step: writes the configuration's JSON Schema to the file that is named. */

import { writeFileSync } from "node:fs";
import { configJsonSchema } from "./schema.ts";

const [, , file] = process.argv;
if (file === undefined) throw new Error("usage: write-schema.ts FILE");
writeFileSync(file, `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
