//! Real components in real sandboxes: each bound is hit, each mistake explained, and the neighbours go on.

mod scene;
mod made;

mod ends;
mod floods;
mod stops;
mod fairness;
mod outside;
mod broadcasts;
mod kv;
mod languages;
mod tables;
mod hostile;
mod loading;
mod explained;
