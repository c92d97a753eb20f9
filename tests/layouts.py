"""Tiny trees in the layouts that datasets are published in."""

import gzip
import json

ONTOLOGY = [
  {"id": "/m/0bt9lr", "name": "Dog", "child_ids": []},
  {"id": "/m/07qf0zm", "name": "Howl", "child_ids": []},
  {"id": "/m/09x0r", "name": "Speech", "child_ids": []},
  {"id": "/m/068hy", "name": "Domestic animals, pets", "child_ids": []},
]
SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
"""
CAPTIONS = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
CLOTHO = "file_name,keywords,sound_id,sound_link,start_end_samples,"
CLOTHO += "manufacturer,license"
FSD = {"64760": {"title": "x", "tags": ["bell"], "license": "CC0"}}


def wavcaps(name, caption):
  row = {"id": name, "caption": caption, "duration": 3.0}
  return json.dumps({"num_captions_per_audio": 1, "data": [row]})


# What lies there; what is read of it: caption, tags, split, id, licence.
TREES = {
  "audioset": (
    {
      "ontology.json": json.dumps(ONTOLOGY),
      "balanced_train_segments.csv": SEGMENTS
      + '--PJHxphWEs, 30.000, 40.000, "/m/0bt9lr,/m/07qf0zm"\n'
      + '--ZhevVpy1s, 50.000, 60.000, "/m/09x0r,/m/0bt9lr"\n'
      + '--aE2O5G5WE, 0.000, 10.000, "/m/068hy"\n',
      "eval_segments.csv": SEGMENTS + '-0gone, 0.000, 10.000, "/m/0bt9lr"\n'
      '-0RWZT-miFs, 420.000, 430.000, "/m/068hy,/m/0bt9lr"\n',
      "a/--PJHxphWEs.wav": "",
      "a/--ZhevVpy1s.wav": "",
      "a/Y--aE2O5G5WE.flac": "",
      "a/-0RWZT-miFs_420000_430000.wav": "",
    },
    [
      ("dog howl", ("Dog", "Howl"), "train", "--PJHxphWEs_30", ""),
      (
        "domestic animals pets",
        ("Domestic animals, pets",),
        "train",
        "--aE2O5G5WE_0",
        "",
      ),
      (
        "domestic animals pets dog",
        ("Domestic animals, pets", "Dog"),
        "test",
        "-0RWZT-miFs_420",
        "",
      ),
    ],
  ),
  "bbc": (
    {
      "BBCSoundEffects.csv": "location,description,secs,category,CDNumber,"
      "CDName,tracknum\n"
      '07076051.wav,"Two-stroke petrol engine, starts, runs.",194,'
      '"Engines: Petrol","EC117D","Diesel & Petrol Engines",1\n',
      "07076051.wav": "",
    },
    [
      (
        "Two-stroke petrol engine, starts, runs.",
        ("Engines: Petrol",),
        "train",
        "07076051.wav",
        "",
      )
    ],
  ),
  "audiocaps": (
    {
      "train.csv": "audiocap_id,youtube_id,start_time,caption\n"
      "91139,r1nicOVtvkQ,130,A woman talks nearby as water pours\n",
      "val.csv": "audiocap_id,youtube_id,start_time,caption\n"
      "97151,vfY_TJq7n_U,130,Rustling occurs\n",
      "audio/r1nicOVtvkQ.wav": "",
      "audio/97151.wav": "",
    },
    [
      ("A woman talks nearby as water pours", (), "train", "91139", ""),
      ("Rustling occurs", (), "validation", "97151", ""),
    ],
  ),
  "clotho": (
    {
      "clotho_captions_development.csv": CAPTIONS
      + "Distorted AM Radio noise.wav,A muddled noise,b,c,d,e\n",
      "clotho_metadata_development.csv": (
        f"{CLOTHO}\nDistorted AM Radio noise.wav,noise;radio,1,https://x,[0],"
        "café,http://creativecommons.org/publicdomain/zero/1.0/\n"
      ).encode("latin-1"),
      "clotho_captions_evaluation.csv": CAPTIONS + "Rain é.wav,1,2,3,4,5\n",
      "clotho_metadata_evaluation.csv": f"{CLOTHO}\nx,,,,,,CC0\n",
      "development/Distorted AM Radio noise.wav": "",
      "evaluation/Rain é.wav": "",
    },
    [
      (
        said,
        (),
        "train",
        f"Distorted AM Radio noise.wav caption_{i}",
        "http://creativecommons.org/publicdomain/zero/1.0/",
      )
      for i, said in enumerate(("A muddled noise", *"bcde"), 1)
    ]
    + [
      (str(i), (), "test", f"Rain é.wav caption_{i}", "") for i in range(1, 6)
    ],
  ),
  "vggsound": (
    {
      "vggsound.csv": '---g-f_I2yQ,1,"people marching",test\n'
      '--0PQM4-hqg,30,"waterfall burbling",train\n'
      "-0gone,1,thunder,train\n",
      "video/---g-f_I2yQ_000001.mp4": "",
      "video/--0PQM4-hqg_30.wav": "",
    },
    [
      ("people marching", ("people marching",), "test", "---g-f_I2yQ_1", ""),
      (
        "waterfall burbling",
        ("waterfall burbling",),
        "train",
        "--0PQM4-hqg_30",
        "",
      ),
    ],
  ),
  "fsd50k": (
    {
      "FSD50K.ground_truth/dev.csv": "fname,labels,mids,split\n"
      '64760,"Church_bell,Bell","/m/a,/m/b",val\n',
      "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n37199,Rain,/m/c\n",
      "FSD50K.metadata/dev_clips_info_FSD50K.json": json.dumps(FSD),
      "FSD50K.metadata/eval_clips_info_FSD50K.json": "{}",
      "FSD50K.dev_audio/64760.wav": "",
      "FSD50K.eval_audio/37199.wav": "",
    },
    [
      (
        "church bell bell",
        ("Church bell", "Bell"),
        "validation",
        "64760",
        "CC0",
      ),
      ("rain", ("Rain",), "test", "37199", ""),
    ],
  ),
  "freetousesounds": (
    {"Car Sounds/FTUS_Car Door Slam Inside 02.wav": ""},
    [
      (
        "ftus car door slam inside",
        ("car sounds",),
        "train",
        "Car Sounds/FTUS_Car Door Slam Inside 02.wav",
        "",
      )
    ],
  ),
  "sonniss": (
    {"Lib - Rain/RAINMetl_HeavyRain on Tin 96k-01_ABC_LIB.wav": ""},
    [
      (
        "heavy rain on tin",
        ("lib rain",),
        "train",
        "Lib - Rain/RAINMetl_HeavyRain on Tin 96k-01_ABC_LIB.wav",
        "",
      )
    ],
  ),
  "wesoundeffects": (
    {"Bundle/0001.wav": ""},
    [("bundle", ("bundle",), "train", "Bundle/0001.wav", "")],
  ),
  "odeon": (
    {"Doors/Creaky Door.wav": ""},
    [("creaky door", ("doors",), "train", "Doors/Creaky Door.wav", "")],
  ),
  "esc50": (
    {
      "meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\n"
      "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
      "4-1-A-14.wav,4,14,chirping_birds,False,1,A\n"
      "5-2-A-0.wav,5,0,dog,True,2,A\n",
      "audio/1-100032-A-0.wav": "",
      "audio/4-1-A-14.wav": "",
      "audio/5-2-A-0.wav": "",
    },
    [
      ("dog", ("dog",), "train", "1-100032-A-0.wav", ""),
      (
        "chirping birds",
        ("chirping birds",),
        "validation",
        "4-1-A-14.wav",
        "",
      ),
      ("dog", ("dog",), "test", "5-2-A-0.wav", ""),
    ],
  ),
  "esc10": (
    {
      "001 - Dog bark/1-30226-A.ogg": "",
      "010 - Fire crackling/5-17150-A.ogg": "",
      "README.md": "",
    },
    [
      ("dog bark", ("Dog bark",), "train", "001 - Dog bark/1-30226-A.ogg", ""),
      (
        "fire crackling",
        ("Fire crackling",),
        "test",
        "010 - Fire crackling/5-17150-A.ogg",
        "",
      ),
    ],
  ),
  "wavcaps": (
    {
      "json_files/AudioSet_SL/as_final.json": wavcaps(
        "Yb0RFKhbpFJA.wav", "Wind blows."
      ),
      "json_files/BBC_Sound_Effects/bbc_final.json": wavcaps(
        "NHU05104027", "A sheep bleats."
      ),
      "json_files/FreeSound/fsd_final.json": wavcaps("2219", "A drum."),
      "json_files/SoundBible/sb_final.json": wavcaps("2219", "A wolf."),
      "AudioSet_SL_flac/Yb0RFKhbpFJA.flac": "",
      "BBC_Sound_Effects_flac/NHU05104027.flac": "",
      "FreeSound_flac/2219.flac": "",
      "SoundBible_flac/2219.flac": "",
    },
    [
      ("Wind blows.", (), "train", "as_final Yb0RFKhbpFJA", ""),
      ("A sheep bleats.", (), "train", "bbc_final NHU05104027", ""),
      ("A drum.", (), "train", "fsd_final 2219", ""),
      ("A wolf.", (), "train", "sb_final 2219", ""),
    ],
  ),
  "csv": (
    {
      "mine.csv": "path,caption,tags,split,licence,start,end\n"
      "b/犬 1.wav,a dog,x; y,val,CC0,,\n"
      "b/犬 1.wav,later,,,,1.5,2\n"
      "b/犬 1.wav,,rain;wind,,,,\n",
      "b/犬 1.wav": "",
    },
    [
      ("a dog", ("x", "y"), "validation", "b/犬 1.wav", "CC0"),
      ("later", (), "train", "b/犬 1.wav (2)", ""),
      ("rain wind", ("rain", "wind"), "train", "b/犬 1.wav (3)", ""),
    ],
  ),
  "jsonl": (
    {
      "mine.jsonl.gz": gzip.compress(
        b'{"path": "a.wav", "caption": "one", "tags": ["t"], "id": "i"}\n\n'
        b'{"path": "gone.wav", "caption": "two"}\n'
      ),
      "a.wav": "",
    },
    [("one", ("t",), "train", "i", "")],
  ),
  "audiocraft": (
    {
      "valid/data.jsonl": '{"path": "dataset/a.wav", "duration": 1.0,'
      ' "sample_rate": 16000, "amplitude": null, "weight": null}\n'
      '{"path": "dataset/b.wav", "duration": 1.0, "sample_rate": 16000}\n',
      "dataset/a.wav": "",
      "dataset/a.json": '{"description": "A dog.", "keywords": "dog, bark"}',
      "dataset/b.wav": "",
      "dataset/b.json": '{"description": ["one", "two"]}',
    },
    [
      ("A dog.", ("dog", "bark"), "validation", "dataset/a.wav", ""),
      ("one", (), "validation", "dataset/b.wav", ""),
      ("two", (), "validation", "dataset/b.wav (2)", ""),
    ],
  ),
  "folder": (
    {
      "a b.wav": "",
      "a b.txt": " rain\non a tin roof ",
      "test/c.ogg": "",
      "test/c.txt": "🐶",
      "lonely.wav": "",
    },
    [
      ("rain on a tin roof", (), "train", "a b.wav", ""),
      ("🐶", (), "test", "test/c.ogg", ""),
    ],
  ),
  "sounds": (
    {"DOG_Barks 02.wav": "", "validation/x/17.ogg": "", "notes.txt": ""},
    [
      ("dog barks", (), "train", "DOG_Barks 02.wav", ""),
      ("17", (), "validation", "validation/x/17.ogg", ""),
    ],
  ),
}
