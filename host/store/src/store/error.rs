//! The errors of stores, named by what the caller or the operator does next.

/// A failed call of a store. The variants are named by what the caller does next.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written. The caller may try again later.
    #[error("the store cannot write now: {0}")]
    Busy(String),
    /// Nothing was written: the store can't take a value of this call, which will fail again. Other calls work.
    #[error("the store refused a value: {0}")]
    Refused(String),
    /// Nothing was written, and the call will fail until an operator fixes the store.
    #[error("the store is broken: {0}")]
    Broken(String),
    /// The write happened, or will happen, or did not. A caller that repeats it must use a token, or read the result
    /// first.
    #[error("the store did not respond, so it is unknown whether it wrote: {0}")]
    Unknown(String),
}

/// A store that could not be opened. The variants are named by what the operator does next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Fix the address of the store.
    #[error("could not open the store: `{address}` {reason}")]
    MendAddress {
        /// The address.
        address: String,
        /// The error, for the operator.
        reason: String,
    },
    /// Stop the other host that uses the file, or use another file.
    #[error(
        "could not open {file}: another host uses it, possibly under another name; \
         stop that host first, or give this one its own store"
    )]
    StopOtherHost {
        /// The path of the file.
        file: String,
    },
    /// Run a newer Wharf, or use another file.
    #[error(
        "could not open {file}: it was written by a newer Wharf (its version is {found}, this one supports up to {known}); \
         run that Wharf, or give this one its own store"
    )]
    TakeNewerHost {
        /// The path of the file.
        file: String,
        /// The version of the file's schema.
        found: i64,
        /// The newest version that this host supports.
        known: i64,
    },
    /// Fix the file.
    #[error("could not open {file}: {reason}")]
    MendFile {
        /// The path of the file.
        file: String,
        /// The error, for the operator.
        reason: String,
    },
    /// Fix the database.
    #[error("could not open {address}: {reason}")]
    MendDatabase {
        /// The database's address.
        address: String,
        /// The error, for the operator.
        reason: String,
    },
    /// Wait: the database responds, and will accept this host later.
    #[error("could not open {address} yet: {reason}")]
    AwaitDatabase {
        /// The database's address.
        address: String,
        /// Why it does not accept this host now.
        reason: String,
    },
}
