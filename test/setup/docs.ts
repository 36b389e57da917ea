/**
 * The generated chapters: the library's interface from its docstrings, and every command's help as
 * it is printed. `npm run docs` writes them, docs.test.ts compares them with what is there.
 *
 * The interface is what API Extractor makes of the published types: one declaration file with
 * everything that can be imported, comments included. It needs `npm run build` before.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Extractor, ExtractorConfig, ExtractorLogLevel } from "@microsoft/api-extractor";
import type { Command } from "commander";
import { commandLine, withSubcommands } from "../../host/cli/program.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const FOLDER = `${ROOT}build/api/`;

/** Chapter by its place in the repository. */
export function chapters(): Record<string, string> {
  return { "host/api.md": apiChapter(), "host/cli/README.md": helpChapter() };
}

/** All published declarations in one file. @throws when one refers to what cannot be imported */
function declarations(): string {
  mkdirSync(FOLDER, { recursive: true });
  const entry = `${FOLDER}all.d.ts`;
  const rollup = `${FOLDER}flowplane.d.ts`;
  const parts = ["index", "node"].map((name) => `export * from "../../dist/host/${name}.ts";\n`);
  writeFileSync(entry, parts.join(""));
  const compilerOptions = {
    target: "es2022",
    lib: ["esnext", "dom"],
    module: "nodenext",
    moduleResolution: "nodenext",
    strict: true,
    skipLibCheck: true,
    types: ["node"],
  };
  const report = { logLevel: ExtractorLogLevel.Error };
  const quiet = { logLevel: ExtractorLogLevel.None };
  const result = Extractor.invoke(
    ExtractorConfig.prepare({
      configObjectFullPath: undefined,
      packageJsonFullPath: `${ROOT}package.json`,
      configObject: {
        projectFolder: ROOT,
        mainEntryPointFilePath: entry,
        newlineKind: "lf",
        compiler: { overrideTsconfig: { compilerOptions, files: [entry] } },
        apiReport: { enabled: false },
        docModel: { enabled: false },
        tsdocMetadata: { enabled: false },
        dtsRollup: { enabled: true, untrimmedFilePath: rollup },
        messages: {
          compilerMessageReporting: { default: report },
          extractorMessageReporting: { default: quiet, "ae-forgotten-export": report },
          tsdocMessageReporting: { default: quiet },
        },
      },
    }),
    {
      localBuild: true,
      messageCallback: (message) => {
        message.handled = message.logLevel === "info" || message.logLevel === "verbose";
      },
    },
  );
  if (!result.succeeded) throw new Error(`${result.errorCount} errors in the published types`);
  return readFileSync(rollup, "utf8")
    .replace(/^export { }$/m, "")
    .trim();
}

function apiChapter(): string {
  const node = readFileSync(`${ROOT}host/node.ts`, "utf8");
  const names = [...node.matchAll(/^export \{ (.+) \} from/gm)].flatMap(([, list]) =>
    (list ?? "").replaceAll("type ", "").split(", "),
  );
  const listed = names.map((name) => `\`${name}\``).join(", ");
  return `# The library

Made by \`npm run docs\` from the docstrings. From \`flowplane/node\`: ${listed}. All else is
from \`flowplane\`.

\`\`\`ts
${declarations()}
\`\`\`
`;
}

/** What `--help` of a command prints. */
function printedHelp(command: Command): string {
  let text = "";
  command.configureOutput({
    writeOut: (part) => {
      text += part;
    },
  });
  command.outputHelp();
  return text.trimEnd();
}

function helpChapter(): string {
  const [program, ...commands] = withSubcommands(commandLine()) as [Command, ...Command[]];
  const sections = commands.map((command) => {
    return `## ${fullName(command)}\n\n${fenced(printedHelp(command))}`;
  });
  return `# The command

Made by \`npm run docs\`: what \`--help\` prints. Results go to standard output, everything else to
standard error; an error is one line, \`--debug\` adds where it arose.

${fenced(printedHelp(program))}

${sections.join("\n\n")}
`;
}

/** `flowplane pp2 encode` */
function fullName(command: Command): string {
  return command.parent ? `${fullName(command.parent)} ${command.name()}` : command.name();
}

function fenced(text: string): string {
  return `\`\`\`\n${text}\n\`\`\``;
}

if (import.meta.main) {
  for (const [path, text] of Object.entries(chapters())) writeFileSync(ROOT + path, text);
}
