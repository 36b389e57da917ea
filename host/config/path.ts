/** Places in a configuration: `nlb.targets[0].address`. */

export type Path = readonly PropertyKey[];

/** What is wrong at a place; the message follows the place's name. */
export interface Problem {
  path: Path;
  message: string;
}

/** A key that has dots of its own stands in brackets and quotes. */
export function pathName(path: Path): string {
  return path
    .map((step) => {
      if (typeof step === "number") return `[${step}]`;
      const key = String(step);
      return key.includes(".") ? `["${key}"]` : `.${key}`;
    })
    .join("")
    .replace(/^\./, "");
}

export function valueAt(root: unknown, path: Path): unknown {
  let value = root;
  for (const step of path) value = (value as Record<PropertyKey, unknown> | undefined)?.[step];
  return value;
}

/** A problem whose message begins with the value that stands at the place. */
export function wrongValue(root: unknown, path: Path, rest: string): Problem {
  return { path, message: `${shortValue(valueAt(root, path))} ${rest}` };
}

export function shortValue(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
