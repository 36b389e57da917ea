import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type Actor,
  createEndpoint,
  type EndpointAction,
  EndpointRefusal,
  type EndpointState,
  stepEndpoint,
} from "../host/control/endpoints.ts";
import { subscribers } from "../host/control/notifications.ts";
import { isAllowed } from "../host/control/permissions.ts";
import {
  POLICY_CHARACTERS_MAX,
  POLICY_DEFAULT,
  parsePolicy,
  policyError,
} from "../host/control/policy.ts";

const ROOT = "arn:aws:iam::111111111111:root";

describe("an endpoint", () => {
  test.each([
    [true, "pendingAcceptance"],
    [false, "pending"],
  ] as const)("begins, with acceptance required %s, in %s", (isAcceptanceRequired, to) => {
    const service = { allowedPrincipals: ["*"], isAcceptanceRequired };
    expect(createEndpoint(ROOT, service)).toEqual({
      from: "none",
      to,
      event: "Connect",
      terminates: false,
    });
  });

  test("of nobody whom the service lets in is refused", () => {
    const service = { allowedPrincipals: [], isAcceptanceRequired: false };
    expect(() => createEndpoint(ROOT, service)).toThrow(EndpointRefusal);
  });

  test("is accepted, gets ready, is rejected, and its flows end", () => {
    expect(stepEndpoint("pendingAcceptance", "accept")).toMatchObject({
      to: "pending",
      event: "Accept",
    });
    expect(stepEndpoint("pending", "ready")).toMatchObject({ to: "available", event: undefined });
    expect(stepEndpoint("available", "reject")).toEqual({
      from: "available",
      to: "rejected",
      event: "Reject",
      terminates: true,
    });
  });

  test("that is modified is pending for a while, and its flows go on", () => {
    expect(stepEndpoint("available", "modify")).toMatchObject({ to: "pending", terminates: false });
  });

  test("cannot be deleted by the provider, nor accepted by the consumer", () => {
    expect(() => stepEndpoint("available", "delete", "provider")).toThrow(
      new EndpointRefusal("delete is for the consumer, not for the provider"),
    );
    expect(() => stepEndpoint("pendingAcceptance", "accept", "consumer")).toThrow(EndpointRefusal);
  });

  /** The documentation as sentences: [state, who, what, what comes of it]. */
  const SENTENCES: [EndpointState, Actor, EndpointAction, EndpointState][] = [
    ["pendingAcceptance", "provider", "accept", "pending"],
    ["pendingAcceptance", "provider", "reject", "rejected"],
    ["pendingAcceptance", "system", "expire", "expired"],
    ["pending", "system", "ready", "available"],
    ["pending", "system", "fail", "failed"],
    ["pending", "provider", "reject", "rejected"],
    ["available", "provider", "reject", "rejected"],
    ["available", "consumer", "modify", "pending"],
    ["rejected", "provider", "accept", "pending"],
    ["deleting", "system", "gone", "deleted"],
    ...(
      ["pendingAcceptance", "pending", "available", "rejected", "expired", "failed"] as const
    ).map((state): [EndpointState, Actor, EndpointAction, EndpointState] => {
      return [state, "consumer", "delete", "deleting"];
    }),
  ];

  test("does what the sentences say and refuses all else, over any life", () => {
    const actions = fc.constantFrom<EndpointAction>(
      ...(["accept", "reject", "modify", "ready", "fail", "expire", "delete", "gone"] as const),
    );
    const actors = fc.constantFrom<Actor>("consumer", "provider", "system");
    fc.assert(
      fc.property(fc.array(fc.tuple(actions, actors), { maxLength: 40 }), (life) => {
        let state: EndpointState = "pendingAcceptance";
        for (const [action, actor] of life) {
          const sentence = SENTENCES.find(([from, who, what]) => {
            return from === state && who === actor && what === action;
          });
          if (!sentence) {
            expect(() => stepEndpoint(state, action, actor)).toThrow(EndpointRefusal);
            continue;
          }
          const next = stepEndpoint(state, action, actor);
          expect(next.to).toBe(sentence[3]);
          expect(next.terminates).toBe(state === "available" && next.to !== "pending");
          state = next.to;
        }
      }),
      { numRuns: 3000, seed: 12 },
    );
  });
});

test.each([
  [[], ROOT, false],
  [["*"], ROOT, true],
  [["*"], "nobody", false],
  [[ROOT], ROOT, true],
  [[ROOT], "arn:aws:iam::111111111111:role/app", true],
  [["arn:aws:iam::111111111111:role/app"], ROOT, false],
  [["arn:aws:iam::111111111111:role/app"], "arn:aws:iam::111111111111:role/app", true],
  [["arn:aws:iam::111111111111:user/x"], "arn:aws:iam::111111111111:user/y", false],
  [["arn:aws:iam::222222222222:root"], ROOT, false],
])("permissions %j let %s in: %s", (allowed, principal, isLetIn) => {
  expect(isAllowed(allowed, principal)).toBe(isLetIn);
});

test("a notification goes to those who want the event", () => {
  const all = { a: { events: ["Connect", "Accept"] as const }, b: { events: ["Delete"] as const } };
  expect(subscribers(all, "Accept")).toEqual(["a"]);
  expect(subscribers(all, "Reject")).toEqual([]);
});

describe("an endpoint policy", () => {
  const good = { Effect: "Allow", Principal: "*", Action: "*", Resource: "*" };

  test("is everything for everyone by default", () => {
    expect(policyError(POLICY_DEFAULT)).toBeUndefined();
    expect(JSON.stringify(POLICY_DEFAULT)).toBe(
      '{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}',
    );
  });

  test("may hold one statement instead of a list, as text or as an object", () => {
    expect(parsePolicy(JSON.stringify({ Statement: good })).Statement).toEqual([good]);
    expect(parsePolicy({ Version: "2012-10-17", Statement: [good] }).Statement).toEqual([good]);
  });

  test("has at most 20,480 characters, white space included", () => {
    const text = JSON.stringify({ Statement: good });
    expect(policyError(text.padEnd(POLICY_CHARACTERS_MAX))).toBeUndefined();
    expect(policyError(text.padEnd(POLICY_CHARACTERS_MAX + 1))).toBe(
      "20481 characters are more than 20480",
    );
  });

  test.each([
    ["{", "is not JSON"],
    [[], "is not a JSON object"],
    [{}, "has no Statement"],
    [{ Statements: good }, "has the unknown element Statements"],
    [{ Version: "2020", Statement: good }, 'Version "2020" is not 2012-10-17 or 2008-10-17'],
    [{ Statement: [{ ...good, Principal: undefined }] }, "Statement[0] has no Principal"],
    [{ Statement: [good, { ...good, Effect: "allow" }] }, 'Statement[1] Effect "allow" is not'],
    [{ Statement: { ...good, NotAction: "x" } }, "not exactly one of Action and NotAction"],
    [{ Statement: { ...good, Resource: undefined } }, "not exactly one of Resource"],
    [{ Statement: { ...good, Actions: "*" } }, "Statement[0] has the unknown element Actions"],
  ])("%j is refused", (policy, message) => {
    expect(policyError(policy)).toContain(message);
    expect(() => parsePolicy(policy)).toThrow(TypeError);
  });
});
