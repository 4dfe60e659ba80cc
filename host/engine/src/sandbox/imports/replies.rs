//! Converts the replies to a guest's broadcast for the guest, within a limit of bytes in all.

use std::time::Duration;

use wharf_core::bounds;
use wharf_core::outcome::Failure as CoreFailure;
use wharf_core::rollcall::{self, Answer as CoreAnswer};

use crate::sandbox::bindings::wharf::plugin::broadcasts::{Answer, Reply};
use crate::sandbox::bindings::wharf::plugin::types::Failure;

/// A text that does not fit is cut to this many bytes.
const CUT_BYTES: usize = 200;

/// The bytes that are left for the replies of one broadcast.
pub(super) struct ReplyBudget(u64);

impl ReplyBudget {
    pub(super) fn new() -> ReplyBudget {
        ReplyBudget(bounds::REPLIES_BYTES_MAX)
    }

    pub(super) fn taken(&self) -> u64 {
        bounds::REPLIES_BYTES_MAX - self.0
    }

    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes as u64);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    fn text(&mut self, mut text: String) -> String {
        if !self.take(text.len()) && text.len() > CUT_BYTES {
            text.truncate(text.floor_char_boundary(CUT_BYTES));
            text.push_str(" ... (cut: the replies of one broadcast are too large in all)");
        }
        text
    }

    pub(super) fn convert(&mut self, reply: rollcall::Reply) -> Reply {
        Reply {
            plugin: reply.plugin.to_string(),
            answer: self.answer(reply.answer),
            elapsed_us: u64::try_from(reply.elapsed.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn answer(&mut self, answer: CoreAnswer) -> Answer {
        match answer {
            CoreAnswer::Replied(bytes) if self.take(bytes.len()) => Answer::Replied(bytes),
            CoreAnswer::Replied(bytes) => Answer::Trapped(format!(
                "its reply of {} bytes was left out: the replies of one broadcast are limited to {} MiB in all",
                bytes.len(),
                bounds::REPLIES_BYTES_MAX / bounds::MIB
            )),
            CoreAnswer::Failed(failure) => Answer::Failed(match failure {
                CoreFailure::Retry(why) => Failure::Retry(self.text(why)),
                CoreFailure::RetryAfter(why, after) => Failure::RetryAfter((self.text(why), millis(after))),
                CoreFailure::Discard(why) => Failure::Discard(self.text(why)),
            }),
            CoreAnswer::Trapped(report) => Answer::Trapped(self.text(report)),
            CoreAnswer::TimedOut(report) => Answer::TimedOut(self.text(report)),
            CoreAnswer::Skipped(why) => Answer::Skipped(self.text(why)),
        }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_says_so_and_what_comes_after_may_fit() {
        let mut budget = ReplyBudget::new();
        let mut convert = |answer| {
            budget.convert(rollcall::Reply { plugin: "a".parse().unwrap(), answer, elapsed: Duration::from_millis(2) })
        };
        let max = usize::try_from(bounds::REPLIES_BYTES_MAX).unwrap();
        let whole = convert(CoreAnswer::Replied(vec![0; max - 10]));
        assert!(matches!(whole.answer, Answer::Replied(bytes) if bytes.len() == max - 10) && whole.elapsed_us == 2000);
        assert!(
            matches!(convert(CoreAnswer::Replied(vec![0; 11])).answer, Answer::Trapped(text) if text.contains("11 bytes") && text.contains("limited to 32 MiB in all"))
        );
        assert!(matches!(convert(CoreAnswer::Replied(vec![0; 4])).answer, Answer::Replied(_)));
        let failed = CoreAnswer::Failed(CoreFailure::Discard("x".repeat(1000)));
        assert!(
            matches!(convert(failed).answer, Answer::Failed(Failure::Discard(text)) if text.len() < 300 && text.contains("(cut: "))
        );
        assert!(
            matches!(convert(CoreAnswer::Skipped("short, so let it pass".into())).answer, Answer::Skipped(text) if text.ends_with("pass"))
        );
        assert_eq!(budget.taken(), bounds::REPLIES_BYTES_MAX - 6);
    }
}
