// Counts the lines, words and characters of a text. Nothing in it is made for one host.

export function count(text) {
  if (text === "") throw "the text is empty";
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  const words = text.split(/\s+/u).filter((word) => word !== "");
  return { lines: lines.length, words: words.length, characters: [...text].length };
}
