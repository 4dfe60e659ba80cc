//! The integer that a JSON number is, decided on its digits: through floating point, numbers beyond 2^53 would be rounded.

/// Returns the integer that a JSON number is; `None` if it is none, or beyond every integer of WIT.
pub(crate) fn exact(number: &str) -> Option<i128> {
    if let Ok(value) = number.parse::<i64>() {
        return Some(value.into());
    }
    let (is_negative, rest) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Zeros behind the last digit of a fraction, and before the first digit, say nothing.
    let fraction = fraction.trim_end_matches('0');
    let whole = whole.trim_start_matches('0');
    if whole.is_empty() && fraction.is_empty() {
        return Some(0);
    }
    // An exponent with so many digits that it fits no number moves the point past all digits of a payload.
    let exponent: i64 = match exponent {
        None => 0,
        Some(text) => text.parse().ok()?,
    };
    // Longer ones are integers only with as many zeros, which nobody writes.
    const DIGITS_MAX: usize = 4096;
    if whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    // The digits as one integer, and the power of ten with which it is multiplied.
    let digits = [whole, fraction].concat();
    let trimmed = digits.trim_end_matches('0');
    let zeros = (digits.len() - trimmed.len()) as i64;
    let power = exponent.checked_sub(fraction.len() as i64)?.checked_add(zeros)?;
    let trimmed = trimmed.trim_start_matches('0');
    // 20 digits are enough for every integer of 64 bits.
    if !(0..=20).contains(&power) || trimmed.len() as i64 + power > 20 {
        return None;
    }
    let value = trimmed.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(power as u32)?)?;
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::exact;

    #[test]
    fn an_integer_is_what_its_digits_say() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0e7", 0),
            ("0e99999999999999999999", 0),
            ("1.0", 1),
            ("1e2", 100),
            ("-1.5E+1", -15),
            ("1200e-2", 12),
            ("0.0012e4", 12),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX.into()),
            ("1844674407370955161.5e1", u64::MAX.into()),
            ("1e19", 10_000_000_000_000_000_000),
            ("-9223372036854775808", i64::MIN.into()),
        ] {
            assert_eq!(exact(text), Some(value), "{text}");
        }
        for text in [
            "0.99999999999999999999",
            "1.00000000000000000001",
            "1e-400",
            "1.5",
            "15e-1",
            "1e21",
            "1e400",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            "1000000000000000000000000000000000000000000",
        ] {
            assert_eq!(exact(text), None, "{text}");
        }
    }
}
