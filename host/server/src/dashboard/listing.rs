//! The frames of lists: a table in a box that scrolls, and the way to the next page.

use maud::{Markup, html};

/// A column of a list: its class, and its heading. A class that begins with `c-` is of a column that narrow pages leave out.
pub(super) type Column = (&'static str, &'static str);

/// Returns a table with these columns; `name` says what its rows are.
pub(super) fn listing(name: &str, columns: &[Column], rows: &Markup) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(name) { (bare_listing(name, columns, rows)) }
    }
}

/// Returns a table that is narrow enough not to scroll.
pub(super) fn bare_listing(name: &str, columns: &[Column], rows: &Markup) -> Markup {
    html! {
        table class="rows" {
            caption class="vh" { (name) }
            thead {
                tr {
                    @for (class, heading) in columns {
                        th scope="col" class=[Some(class).filter(|class| !class.is_empty())] { (heading) }
                    }
                }
            }
            tbody { (rows) }
        }
    }
}

/// Returns the way to the first page of a list and to the one that follows; `next` is a reference relative to the list.
pub(super) fn pager(first: Option<&str>, next: Option<&str>, onward: &str) -> Markup {
    html! {
        @if first.is_some() || next.is_some() {
            nav class="pager" aria-label="Pages of the list" {
                @if let Some(first) = first { a class="btn" href=(first) { "First" } }
                @if let Some(next) = next { a class="btn" href=(next) rel="next" { (onward) } }
            }
        }
    }
}
