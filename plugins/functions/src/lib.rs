//! Functions over plain data. Nothing here knows Wharf: each function is a task all the same.

use exports::acme::functions::{
    rows::{self, Row},
    shapes::{self, Shape},
};

wit_bindgen::generate!({ world: "functions" });

struct Functions;

impl shapes::Guest for Functions {
    fn area(of: Shape) -> Result<f64, String> {
        match of {
            Shape::Circle(radius) if radius < 0.0 => Err(format!("the radius {radius} is negative")),
            Shape::Circle(radius) => Ok(std::f64::consts::PI * radius * radius),
            Shape::Rectangle(size) if size.width < 0.0 || size.height < 0.0 => Err("a side is negative".into()),
            Shape::Rectangle(size) => Ok(size.width * size.height),
            Shape::Nothing => Ok(0.0),
        }
    }

    fn largest(shapes: Vec<Shape>) -> Option<Shape> {
        let area = |shape: &Shape| Self::area(*shape).unwrap_or(0.0);
        shapes.into_iter().max_by(|one, other| area(one).total_cmp(&area(other)))
    }
}

impl rows::Guest for Functions {
    fn reverse(rows: Vec<Row>) -> Vec<Row> {
        rows.into_iter().rev().collect()
    }

    fn move_(row: Row, by: i32) -> Result<Row, Row> {
        match row.seen_at.0.checked_add(by) {
            Some(place) => Ok(Row { seen_at: (place, row.seen_at.1), ..row }),
            None => Err(row),
        }
    }
}

impl Guest for Functions {
    fn add(a: u32, b: u64) -> u64 {
        b.wrapping_add(a.into())
    }

    fn reverse(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.reverse();
        bytes
    }

    fn wait_for(spins: u64) {
        (0..spins).for_each(|spin| {
            std::hint::black_box(spin);
        });
    }

    fn divide(a: f64, b: f64) -> f64 {
        a / b
    }

    fn many(
        a: Vec<u8>,
        b: Vec<u8>,
        c: Vec<String>,
        d: Vec<u32>,
        e: String,
        f: String,
        g: String,
        h: String,
        i: Option<u32>,
    ) -> String {
        format!("{a:?} {b:?} {c:?} {d:?} {e}{f}{g}{h} {i:?}")
    }
}

export!(Functions);
