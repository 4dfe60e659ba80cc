// Counts the lines, words and characters of a text. Nothing here knows Wharf: the function is a task all the same.

export function count(text) {
  if (text === "") throw "the text is empty";
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  const words = text.split(/\s+/u).filter((word) => word !== "");
  return { lines: lines.length, words: words.length, characters: [...text].length };
}
