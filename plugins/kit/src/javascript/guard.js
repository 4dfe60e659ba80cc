// Around what the host calls: a failure of the contract is passed on as it is, and so is an error with its place. What else is thrown,
// such as the text with which a call of the host failed, would lose its words on the way.

const guarded = (call) => (input) => {
  let returned;
  try {
    returned = call(input);
  } catch (thrown) {
    const isOfTheHost = thrown?.payload !== undefined;
    if (typeof thrown?.tag === "string" || (thrown instanceof Error && !isOfTheHost)) throw thrown;
    throw new Error(`uncaught: ${isOfTheHost ? thrown.payload : String(thrown)}`);
  }
  if (typeof returned?.then === "function") throw new Error("a promise was returned: a handler cannot be `async` here");
  return returned;
};

export const guardedHandler = ({ handle }) => ({ handle: guarded(handle) });
export const guardedSubscriber = ({ receive }) => ({ receive: guarded(receive) });
