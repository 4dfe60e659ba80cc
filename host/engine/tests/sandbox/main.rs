//! Tests real components in real sandboxes: each limit is reached, each mistake is explained, and neighbours go on.

mod scene;
mod made;

mod ends;
mod floods;
mod memory;
mod stops;
mod fairness;
mod outside;
mod broadcasts;
mod kv;
mod revoked;
mod languages;
mod preview1;
mod programs;
mod functions;
mod methods;
mod tables;
mod hostile;
mod loading;
mod explained;
