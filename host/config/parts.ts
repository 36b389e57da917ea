/**
 * What schemas are put together from. Every object is strict: a key that is not known is an error,
 * because it is most often a misspelt one.
 *
 * An error message is the end of the sentence that begins with the value: `"x" is not an IP
 * address`. Messages about a range give both ends of it.
 */

import { z } from "zod";
import { addressBytes, addressText } from "../address.ts";
import { cidrError } from "../cidr.ts";

export const SECONDS_MAX = 86_400;

export function integer(min: number, max: number) {
  const error = `is not an integer from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

/** The same, or `off`. */
export function integerOrOff(min: number, max: number) {
  return z.union([z.literal("off"), z.int().min(min).max(max)], {
    error: `is not off or an integer from ${min} to ${max}`,
  });
}

export function list<Item extends z.ZodType>(item: Item, max: number, min = 1) {
  const error = `is not a list of ${min} to ${max}`;
  return z.array(item, { error }).min(min, { error }).max(max, { error });
}

export function object<Shape extends z.ZodRawShape>(shape: Shape) {
  return z.strictObject(shape, {
    // Unknown keys are worded where their place in the file is known.
    error: (issue) => (issue.code === "invalid_type" ? "is not a group of keys" : undefined),
  });
}

/**
 * Things by name, at most `max`; `key` says what a name may be. No name is there that the file does not
 * give, `constructor` neither. What may be left out is `.prefault({})`, which passes through here.
 */
export function named<Item extends z.ZodType>(item: Item, max: number, key = name) {
  return z
    .record(key, item, { error: "is not a group of names" })
    .check(
      z.refine((all) => Object.keys(all).length <= max, { error: `has more than ${max} entries` }),
    )
    .overwrite((all) => Object.assign(Object.create(null), all));
}

export function oneOf<const Words extends readonly [string, ...string[]]>(...words: Words) {
  return z.enum(words, { error: `is not one of ${words.join(", ")}` });
}

export function text(pattern: RegExp, what: string) {
  return z.string({ error: `is not ${what}` }).regex(pattern, { error: `is not ${what}` });
}

/** A policy document, as text or as it is; what it may say is checked where it is put in force. */
export const policy = z.union([z.string(), z.record(z.string(), z.unknown())], {
  error: "is neither a text nor a policy document",
});

export const truth = z.boolean({ error: "is not true or false" });

/** A name that the file itself gives. */
export const name = text(
  /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
  "a name of 1 to 63 letters, digits, dots and dashes",
);

/** An IPv6 address has many spellings; beyond the schema there is one (RFC 5952), so that texts can be compared. */
function plainAddress(text: string): string {
  return text.includes(":") && z.ipv6().safeParse(text).success
    ? addressText(addressBytes(text))
    : text;
}

/** The same of a range, and of a name, which is none. */
export function plainCidr(text: string): string {
  const slash = text.lastIndexOf("/");
  return slash < 0 ? text : `${plainAddress(text.slice(0, slash))}${text.slice(slash)}`;
}

export const address = z
  .union([z.ipv4(), z.ipv6().overwrite(plainAddress)], { error: "is not an IP address" })
  .describe("IPv4 or IPv6 address");

export const address4 = z.ipv4({ error: "is not an IPv4 address" });
export const address6 = z.ipv6({ error: "is not an IPv6 address" }).overwrite(plainAddress);

/** An address range whose bits after the prefix are 0. */
export const cidr = z
  .string({ error: "is not a CIDR" })
  .check((context) => {
    const message = cidrError(context.value);
    if (message) context.issues.push({ code: "custom", input: context.value, message });
  })
  .overwrite(plainCidr);

/** Refuses a second item that means the same as an earlier one. */
export function unique<Item>(meaning: (item: Item) => string) {
  return (context: z.core.ParsePayload<Item[]>) => {
    const seen = new Set<string>();
    context.value.forEach((item, index) => {
      const name = meaning(item);
      if (seen.has(name)) {
        context.issues.push({
          code: "custom",
          input: item,
          path: [index],
          message: "stands in the list twice",
        });
      }
      seen.add(name);
    });
  };
}
